//! The name of a ServiceAccount.

use std::fmt;

/// Most exempt ServiceAccounts: each costs a watch of the Kubernetes API from every node.
pub(crate) const ACCOUNTS_MAX: usize = 16;

/// Longest name of a namespace, bytes (RFC 1123 label).
const NAMESPACE_LEN_MAX: usize = 63;
/// Longest name of a ServiceAccount, bytes (RFC 1123 subdomain).
const NAME_LEN_MAX: usize = 253;

/// A ServiceAccount of exempt pods. Its parts are valid names, so they need no escaping in a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Account {
    /// Parses `NAMESPACE/SERVICEACCOUNT`. Neither part may be a pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (namespace, name) = text.split_once('/').ok_or("not NAMESPACE/SERVICEACCOUNT")?;
        if !is_label(namespace) || namespace.len() > NAMESPACE_LEN_MAX {
            return Err("not the exact name of a namespace before the slash");
        }
        if !is_name(name) {
            return Err("not the exact name of a ServiceAccount after the slash");
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Returns true for a valid name of a ServiceAccount or a node (RFC 1123 subdomain).
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= NAME_LEN_MAX && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_accepted() {
        for good in ["kube-system/aws-node", "a/b.c", "0/a0"] {
            assert_eq!(Account::parse(good).unwrap().to_string(), good);
        }
        let long = format!("a/{}", "b".repeat(NAME_LEN_MAX + 1));
        for bad in [
            "",
            "aws-node",
            "/",
            "/aws-node",
            "kube-system/",
            "*/aws-node",
            "kube-system/*",
            "kube-system/aws-node/x",
            "kube-system/aws,spec.nodeName!=x",
            "kube-system/aws node",
            "kube.system/aws-node",
            "Kube-system/aws-node",
            "-a/b",
            "a/b-",
            "a/b..c",
            &long,
        ] {
            assert!(Account::parse(bad).is_err(), "{bad}");
        }
    }
}

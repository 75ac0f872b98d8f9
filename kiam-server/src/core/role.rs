//! Resolution of an annotated or requested role to an ARN (kiam v4.2, `ResolveRole`).

use super::{
    ids::{RoleArn, RoleArnError},
    text::quote,
};

/// The prefix of roles that are not ARNs (`--role-base-arn`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoleBase(String);

/// Reason why a role cannot be resolved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// kiam's text, which agents expect.
    #[error("role can't be empty")]
    Empty,
    #[error("{arn:?} is not the ARN of a role: {reason}")]
    NotAnArn { arn: String, reason: RoleArnError },
}

impl RoleBase {
    /// Parses a prefix by checking it with a role appended: `…:role/`, `…:role/path/` and `…:role/prefix-` are valid.
    pub(crate) fn parse(text: &str) -> Result<Self, RoleArnError> {
        RoleArn::parse(&format!("{text}x")).map(|_| Self(text.to_owned()))
    }

    /// Returns the base of an account: `arn:aws:iam::123456789012:role/`.
    pub(crate) fn of_account(partition: &str, account: &str) -> Result<Self, RoleArnError> {
        Self::parse(&format!("arn:{partition}:iam::{account}:role/"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Resolves a role: an ARN is left as it is; anything else, without a leading slash, is appended to the base.
    pub(crate) fn resolve(&self, role: &str) -> Result<RoleArn, ResolveError> {
        if role.is_empty() {
            return Err(ResolveError::Empty);
        }
        let arn = if role.starts_with("arn:") {
            role.to_owned()
        } else {
            format!("{}{}", self.0, role.strip_prefix('/').unwrap_or(role))
        };
        RoleArn::parse(&arn).map_err(|reason| ResolveError::NotAnArn { arn: quote(&arn), reason })
    }

    /// Returns the name that kiam shows: the part of an ARN after `role/`, or the role without a leading slash.
    pub(crate) fn display_name(role: &str) -> &str {
        if role.starts_with("arn:") {
            let resource = role.splitn(6, ':').nth(5).unwrap_or(role);
            return resource.strip_prefix("role/").unwrap_or(resource);
        }
        role.strip_prefix('/').unwrap_or(role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "arn:aws:iam::123456789012:role/";

    #[test]
    fn resolves_as_kiam_does() {
        let sub = "arn:aws:iam::123456789012:role/sub/";
        let other = "arn:aws:iam::999999999999:role/path-prefix/another-role";
        for (base, role, arn, name) in [
            (ACCOUNT, "myrole", "arn:aws:iam::123456789012:role/myrole", "myrole"),
            (ACCOUNT, "/myrole", "arn:aws:iam::123456789012:role/myrole", "myrole"),
            (ACCOUNT, "kiam/myrole", "arn:aws:iam::123456789012:role/kiam/myrole", "kiam/myrole"),
            (ACCOUNT, "/kiam/myrole", "arn:aws:iam::123456789012:role/kiam/myrole", "kiam/myrole"),
            (sub, "myrole", "arn:aws:iam::123456789012:role/sub/myrole", "myrole"),
            (ACCOUNT, other, other, "path-prefix/another-role"),
        ] {
            assert_eq!(RoleBase::parse(base).unwrap().resolve(role).unwrap().as_str(), arn, "{role}");
            assert_eq!(RoleBase::display_name(role), name, "{role}");
        }
    }

    #[test]
    fn unresolvable_roles_are_explained() {
        let base = RoleBase::parse(ACCOUNT).unwrap();
        assert_eq!(base.resolve("").unwrap_err().to_string(), "role can't be empty");
        for role in ["arn:", "arn:aws:iam", "arn:aws:iam::OTHER:role/x", "../admin", "//x", "a\nb", "${x}", "ä"] {
            let error = base.resolve(role).unwrap_err().to_string();
            assert!(error.contains("is not the ARN of a role") && !error.contains('\n'), "{error}");
        }
        let error = base.resolve(&"x".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 400, "{}", error.len());
    }

    #[test]
    fn a_base_must_end_where_a_name_can_begin() {
        for good in [ACCOUNT, "arn:aws-cn:iam::123456789012:role/sub/", "arn:aws:iam::123456789012:role/app-"] {
            assert!(RoleBase::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "role/", "arn:aws:iam::123456789012:role", "arn:aws:iam::123456789012:instance-profile/"] {
            assert!(RoleBase::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(RoleBase::of_account("aws", "123456789012").unwrap().as_str(), ACCOUNT);
    }
}

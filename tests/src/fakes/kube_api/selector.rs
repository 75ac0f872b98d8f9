//! Selection of objects of a kind: by namespace, by name, and by the fields that a real API server supports.

use serde_json::Value;

/// Selectable fields of a Pod, as far as a client here uses them, and their JSON pointers.
const POD_FIELDS: [(&str, &str); 3] = [
    ("spec.nodeName", "/spec/nodeName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("status.phase", "/status/phase"),
];
/// Selectable fields of every kind.
const FIELDS: [(&str, &str); 2] = [("metadata.name", "/metadata/name"), ("metadata.namespace", "/metadata/namespace")];

/// Selection of objects of a kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) namespace: Option<String>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone)]
struct Requirement {
    pointer: &'static str,
    value: String,
    equal: bool,
}

impl Filter {
    /// Parses a selector; `None` if a real API server would not support the field or could not parse it.
    pub(super) fn parse(namespace: Option<&str>, is_pod: bool, selector: &str) -> Option<Self> {
        let words = selector.split(',').filter(|word| !word.is_empty());
        let fields = words.map(|word| requirement(is_pod, word)).collect::<Option<_>>()?;
        Some(Self { namespace: namespace.map(ToOwned::to_owned), fields })
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.namespace.as_deref().is_none_or(|namespace| text("/metadata/namespace") == namespace)
            && self.fields.iter().all(|field| (text(field.pointer) == field.value) == field.equal)
    }
}

fn requirement(is_pod: bool, word: &str) -> Option<Requirement> {
    let (name, value, equal) = match word.split_once("!=") {
        Some((name, value)) => (name, value, false),
        None => word.split_once('=').map(|(name, value)| (name, value.trim_start_matches('='), true))?,
    };
    let of_pod = POD_FIELDS.iter().filter(|_| is_pod);
    let (_, pointer) = FIELDS.iter().chain(of_pod).find(|(known, _)| *known == name)?;
    Some(Requirement { pointer, value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_requirement_must_hold() {
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("", true),
            ("spec.nodeName=a", true),
            ("spec.nodeName==a,status.phase!=Failed", true),
            ("spec.nodeName=b", false),
            ("spec.nodeName=a,status.phase!=Running", false),
            ("spec.serviceAccountName=x", false),
        ] {
            assert_eq!(Filter::parse(Some("n"), true, selector).unwrap().matches(&pod), expected, "{selector}");
            assert!(!Filter::parse(Some("other"), true, selector).unwrap().matches(&pod), "{selector}");
        }
    }

    #[test]
    fn fields_of_other_kinds_are_refused() {
        assert!(Filter::parse(None, true, "spec.hostname=x").is_none());
        assert!(Filter::parse(None, false, "spec.nodeName=x").is_none());
        assert!(Filter::parse(None, true, "spec.nodeName").is_none());
    }
}

//! The test cases of kiam (pkg/server/policy of kiam v4.2), and cases that kiam decided wrongly.

use super::*;
use crate::core::{ids::PodUid, namespace::Anchoring};

const ACCOUNT: &str = "arn:aws:iam::123456789012:role/";
const SUB: &str = "arn:aws:iam::123456789012:role/subpath/";

fn policy(base: &str) -> Policy {
    Policy { role_base: RoleBase::parse(base).unwrap(), default_session: SessionName::parse("kiam").unwrap() }
}

fn pod(role: &str) -> PodFacts {
    PodFacts {
        uid: PodUid::parse("u").unwrap(),
        namespace: "ns".to_owned(),
        name: "pod".to_owned(),
        addresses: vec![],
        on_node_network: false,
        active: true,
        node: String::new(),
        role: Some(role.to_owned()),
        session_name: None,
        external_id: None,
    }
}

fn namespace(expression: &str, anchoring: Anchoring) -> NamespaceFacts {
    NamespaceFacts { name: "ns".to_owned(), permitted: Permitted::compile(expression, anchoring) }
}

/// Returns the granted role, or the explanation of the denial.
fn decide(
    base: &str,
    annotated: &str,
    requested: &str,
    expression: &str,
    anchoring: Anchoring,
) -> Result<String, String> {
    policy(base)
        .decide(&pod(annotated), Some(&namespace(expression, anchoring)), requested)
        .map(|identity| identity.role.to_string())
        .map_err(|denial| denial.to_string())
}

#[test]
fn the_requested_role_must_be_the_annotated_one() {
    let red = format!("{ACCOUNT}red");
    for (annotated, requested) in
        [("red", "red"), ("/red", "red"), ("red", "/red"), ("/red", "/red"), (&red, "red"), ("red", &red)]
    {
        assert_eq!(decide(ACCOUNT, annotated, requested, ".*", Anchoring::Strict), Ok(red.clone()), "{annotated}");
    }
    for (annotated, requested, text) in [
        ("running_role", "wrong", "requested 'wrong' but annotated with 'running_role', forbidden"),
        ("/a/b", "b", "requested 'b' but annotated with 'a/b', forbidden"),
        ("red", "", "role can't be empty"),
        ("", "red", "role can't be empty"),
        ("red", "a\nb", "requested 'a\u{fffd}b' but annotated with 'red', forbidden"),
        ("red", "arn:", "requested 'arn:' but annotated with 'red', forbidden"),
    ] {
        let denied = decide(ACCOUNT, annotated, requested, ".*", Anchoring::Strict);
        assert_eq!(denied.unwrap_err(), text, "{annotated} {requested}");
    }
}

#[test]
fn the_namespace_permits_it() {
    let colours = "^.*/red.*$|^.*/.red.*$";
    for (base, role, expression, strict, anywhere) in [
        (ACCOUNT, "red_role", colours, true, true),
        (ACCOUNT, "/red_role", colours, true, true),
        (ACCOUNT, "orange_role", colours, false, false),
        (ACCOUNT, "red_role", "", false, false),
        (ACCOUNT, "red_role", "o", false, true),
        (ACCOUNT, "red_role", "role", false, true),
        (ACCOUNT, "red_role", ".*role", true, true),
        (ACCOUNT, "red_role", "arn:aws:iam::123456789012:role/.*", true, true),
        (SUB, "red_role", ".*/subpath/.*", true, true),
        (SUB, "red_role", "arn:aws:iam::123456789012:role/red.*", false, false),
        (SUB, "red_role", "arn:aws:iam::123456789012:role/subpath/red_role", true, true),
        (SUB, "red_role", "arn:aws:iam::123456789012:role/subpath/other", false, false),
    ] {
        for (anchoring, permitted) in [(Anchoring::Strict, strict), (Anchoring::Anywhere, anywhere)] {
            let decided = decide(base, role, role, expression, anchoring);
            assert_eq!(decided.is_ok(), permitted, "{role} {expression} {anchoring:?}: {decided:?}");
        }
    }
}

#[test]
fn denials_have_kiams_texts() {
    let denied = decide(ACCOUNT, "orange_role", "orange_role", "^red.*$|^.red.*$", Anchoring::Strict);
    assert_eq!(
        denied.unwrap_err(),
        "namespace policy expression '^red.*$|^.red.*$' forbids role 'arn:aws:iam::123456789012:role/orange_role'"
    );
    let denied = decide(ACCOUNT, "red", "/red", "", Anchoring::Strict);
    assert_eq!(denied.unwrap_err(), "namespace policy expression '(empty)' forbids role '/red'");
    let denied = policy(ACCOUNT).decide(&pod("red"), None, "red");
    assert_eq!(denied, Err(Denial::NothingPermitted { requested: "red".to_owned() }));
    let denied = decide(ACCOUNT, "red", "red", "[", Anchoring::Strict).unwrap_err();
    assert!(denied.contains("iam.amazonaws.com/permitted of namespace 'ns' is not a regular expression"), "{denied}");
}

#[test]
fn an_alternative_is_not_a_prefix() {
    let either = format!("{ACCOUNT}a|{ACCOUNT}b");
    assert!(decide(ACCOUNT, "a", "a", &either, Anchoring::Strict).is_ok());
    assert!(decide(ACCOUNT, "admin", "admin", &either, Anchoring::Strict).is_err());
}

#[test]
fn invalid_annotations_are_named_in_the_denial() {
    let all = namespace(".*", Anchoring::Strict);
    let mut malformed_session = pod("red");
    malformed_session.session_name = Some("a\nb".to_owned());
    let mut malformed_id = pod("red");
    malformed_id.external_id = Some("x".to_owned());
    let cases = [
        (pod("arn:aws:iam::OTHER:role/x"), "arn:aws:iam::OTHER:role/x", "iam.amazonaws.com/role of the pod: \"arn:"),
        (pod("arn:"), "arn:", "the form arn:PARTITION:iam::ACCOUNT:role/NAME"),
        (pod("../admin"), "../admin", "iam.amazonaws.com/role"),
        (malformed_session, "red", "iam.amazonaws.com/session-name of the pod: it contains a character"),
        (malformed_id, "red", "iam.amazonaws.com/external-id of the pod: it is not between 2 and 1224"),
    ];
    for (pod, requested, text) in cases {
        let denied = policy(ACCOUNT).decide(&pod, Some(&all), requested).unwrap_err().to_string();
        assert!(denied.contains(text), "{denied}");
        assert_eq!(policy(ACCOUNT).expected_identity(&pod, Some(&all)), None);
    }
}

#[test]
fn the_identity_has_every_annotation() {
    let all = namespace(".*", Anchoring::Strict);
    let mut annotated_pod = pod("red");
    annotated_pod.session_name = Some("mine".to_owned());
    annotated_pod.external_id = Some("id-1".to_owned());
    let identity = policy(ACCOUNT).decide(&annotated_pod, Some(&all), "red").unwrap();
    assert_eq!(identity.session.as_str(), "kiam-mine");
    assert_eq!(identity.external_id.as_ref().unwrap().as_str(), "id-1");
    assert_eq!(policy(ACCOUNT).expected_identity(&annotated_pod, Some(&all)), Some(identity));
    let plain = policy(ACCOUNT).decide(&pod("red"), Some(&all), "red").unwrap();
    assert_eq!((plain.session.as_str(), plain.external_id), ("kiam-kiam", None));
    annotated_pod.active = false;
    assert_eq!(policy(ACCOUNT).expected_identity(&annotated_pod, Some(&all)), None);
}

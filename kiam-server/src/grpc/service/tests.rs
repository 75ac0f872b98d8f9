//! The service with fakes: responses, status texts, and notices.

use super::*;
use crate::core::{
    ids::PodUid,
    lookup::{Origin, Query},
    namespace::{Anchoring, NamespaceFacts, Permitted},
    provider::{CredentialError, FailureClass},
    role::RoleBase,
    session::SessionName,
};
use kiam_common::{secret::Secret, tls::Side};
use prometheus_client::registry::Registry;
use std::{net::IpAddr, sync::Mutex, time::Duration};

/// Looks up pods by the last byte of the address.
struct FakePods(Vec<(u8, Result<Found, LookupError>)>);

impl PodLookup for FakePods {
    fn is_synced(&self) -> bool {
        !self.0.iter().any(|(_, result)| matches!(result, Err(LookupError::NotSynced)))
    }

    async fn find(&self, query: Query) -> Result<Found, LookupError> {
        let Origin::Address(address) = query.origin else { return Err(LookupError::Contradiction) };
        let known = self.0.iter().find(|(last, _)| address == IpAddr::from([10, 0, 0, *last]));
        known.map_or(Err(LookupError::NotFound), |(_, result)| result.clone())
    }
}

/// Returns credentials for every identity, or the error.
struct FakeCredentials(Option<CredentialError>);

impl CredentialSource for FakeCredentials {
    async fn credentials(&self, identity: &Identity) -> Result<Arc<Credentials>, CredentialError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => Ok(Arc::new(Credentials {
                access_key_id: format!("ASIA-{}", identity.role.name()),
                secret_access_key: Secret::new("secret".to_owned()),
                session_token: Secret::new("token".to_owned()),
                issued: "2026-01-02T03:04:05.6Z".parse().unwrap(),
                expires: "2026-01-02T04:04:05Z".parse().unwrap(),
            })),
        }
    }
}

#[derive(Default)]
struct FakeNotices(Mutex<Vec<Notice>>);

impl NoticeSink for FakeNotices {
    fn notify(&self, _: &Arc<PodFacts>, notice: Notice) {
        self.0.lock().unwrap().push(notice);
    }
}

fn found(role: Option<&str>, permitted: &str) -> Found {
    Found {
        pod: Arc::new(PodFacts {
            uid: PodUid::parse("uid-1").unwrap(),
            namespace: "ns".to_owned(),
            name: "pod".to_owned(),
            addresses: vec![],
            on_node_network: false,
            active: true,
            node: "n1".to_owned(),
            role: role.map(str::to_owned),
            session_name: None,
            external_id: None,
        }),
        namespace: Some(Arc::new(NamespaceFacts {
            name: "ns".to_owned(),
            permitted: Permitted::compile(permitted, Anchoring::Strict),
        })),
        seen_for: Duration::from_millis(1500),
    }
}

type TestKiam = Kiam<FakePods, FakeCredentials, FakeNotices>;

fn kiam(answers: Vec<Result<Found, LookupError>>, failure: Option<CredentialError>) -> TestKiam {
    let answers = (1..).zip(answers).collect();
    Kiam {
        pods: Arc::new(FakePods(answers)),
        credentials: FakeCredentials(failure),
        notices: Arc::default(),
        policy: Arc::new(Policy {
            role_base: RoleBase::parse("arn:aws:iam::123456789012:role/").unwrap(),
            default_session: SessionName::parse("kiam").unwrap(),
        }),
        metrics: RpcMetrics::register(Side::Server, &mut Registry::default()),
    }
}

async fn role(kiam: &TestKiam, ip: &str, caller: Option<proto::Caller>) -> Result<proto::Role, Status> {
    let request = proto::GetPodRoleRequest { ip: ip.to_owned(), caller };
    kiam.get_pod_role(Request::new(request)).await.map(Response::into_inner)
}

async fn credentials(kiam: &TestKiam, ip: &str, role: &str) -> Result<proto::Credentials, (Code, String)> {
    let request = proto::GetPodCredentialsRequest { ip: ip.to_owned(), role: role.to_owned(), caller: None };
    let answer = kiam.get_pod_credentials(Request::new(request)).await;
    answer.map(Response::into_inner).map_err(|status| (status.code(), status.message().to_owned()))
}

fn unknown(text: &str) -> (Code, String) {
    (Code::Unknown, text.to_owned())
}

#[tokio::test]
async fn a_role_is_the_annotation_as_written() {
    let kiam = kiam(vec![Ok(found(Some("/a/red"), "")), Ok(found(None, "")), Err(LookupError::Ambiguous)], None);
    assert_eq!(role(&kiam, "10.0.0.1", None).await.unwrap().name, "/a/red");
    assert_eq!(role(&kiam, "::ffff:10.0.0.1", None).await.unwrap().name, "/a/red");
    assert_eq!(role(&kiam, "10.0.0.2", None).await.unwrap().name, "");
    for (ip, text) in [
        ("10.0.0.3", "multiple running pods found"),
        ("10.0.0.9", "pod not found"),
        ("[::1]", "pod not found"),
        ("", "pod not found"),
    ] {
        let status = role(&kiam, ip, None).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unknown, text), "{ip}");
    }
}

#[tokio::test]
async fn the_pod_is_returned_only_if_a_caller_is_sent() {
    let kiam = kiam(vec![Ok(found(Some("red"), ".*"))], None);
    assert_eq!(role(&kiam, "10.0.0.1", None).await.unwrap().seen, None);
    let caller = Some(proto::Caller { interface_age_ms: Some(5000), wait_ms: 900, pod_uid: None });
    let seen = role(&kiam, "10.0.0.1", caller).await.unwrap().seen.unwrap();
    assert_eq!((seen.pod_namespace.as_str(), seen.pod_name.as_str()), ("ns", "pod"));
    assert_eq!((seen.pod_uid.as_str(), seen.for_ms), ("uid-1", 1500));
}

#[tokio::test]
async fn a_uid_at_another_address_has_its_own_code() {
    let kiam = kiam(vec![Ok(found(Some("red"), ".*"))], None);
    let caller = |uid: &str| Some(proto::Caller { pod_uid: Some(uid.to_owned()), ..proto::Caller::default() });
    for ip in ["10.0.0.1", ""] {
        let status = role(&kiam, ip, caller("uid-2")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, proto::CONTRADICTION), "{ip:?}");
    }
    let status = role(&kiam, "10.0.0.1", caller("")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "pod not found"), "an empty uid identifies no pod");
}

#[tokio::test]
async fn credentials_have_kiams_form() {
    let kiam = kiam(vec![Ok(found(Some("red"), ".*"))], None);
    let expected = proto::Credentials {
        code: "Success".to_owned(),
        r#type: "AWS-HMAC".to_owned(),
        access_key_id: "ASIA-red".to_owned(),
        secret_access_key: "secret".to_owned(),
        token: "token".to_owned(),
        expiration: "2026-01-02T04:04:05Z".to_owned(),
        last_updated: "2026-01-02T03:04:05Z".to_owned(),
        seen: None,
    };
    assert_eq!(credentials(&kiam, "10.0.0.1", "red").await, Ok(expected));
    assert!(kiam.notices.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_the_notice_explains_a_denial() {
    let answers = vec![
        Ok(found(Some("red"), "")),
        Ok(found(Some("red"), "[")),
        Ok(found(Some("arn:aws:iam::x:role/y"), ".*")),
        Ok(found(Some("red"), ".*")),
    ];
    let kiam = kiam(answers, None);
    for (ip, role, explanation) in [
        ("10.0.0.1", "red", "namespace policy expression '(empty)' forbids role 'red'"),
        ("10.0.0.2", "red", "annotation iam.amazonaws.com/permitted of namespace 'ns' is not a regular expression"),
        ("10.0.0.3", "arn:aws:iam::x:role/y", "annotation iam.amazonaws.com/role of the pod"),
        ("10.0.0.4", "blue", "requested 'blue' but annotated with 'red', forbidden"),
    ] {
        assert_eq!(credentials(&kiam, ip, role).await, Err(unknown("forbidden by policy")));
        let notice = kiam.notices.0.lock().unwrap().pop();
        let Some(Notice::RoleForbidden { requested, explanation: found }) = notice else { panic!("{notice:?}") };
        assert_eq!(requested, role);
        assert!(found.starts_with(explanation), "{found}");
    }
}

#[tokio::test]
async fn lookup_errors_have_kiams_texts_and_no_notice() {
    let kiam = kiam(vec![Ok(found(None, ".*")), Err(LookupError::Ambiguous)], None);
    assert_eq!(credentials(&kiam, "10.0.0.1", "red").await, Err(unknown("role can't be empty")));
    assert_eq!(credentials(&kiam, "10.0.0.2", "red").await, Err(unknown("multiple running pods found")));
    assert_eq!(credentials(&kiam, "10.0.0.9", "red").await, Err(unknown("no pod found")));
    assert!(kiam.notices.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn failures_of_sts_have_a_code_by_class() {
    for (class, code) in [
        (FailureClass::AccessDenied, Code::Unknown),
        (FailureClass::Other, Code::Unknown),
        (FailureClass::Throttled, Code::Unavailable),
        (FailureClass::Transient, Code::Unavailable),
    ] {
        let error = CredentialError { class, message: "Code: text".to_owned() };
        let kiam = kiam(vec![Ok(found(Some("red"), ".*"))], Some(error));
        assert_eq!(credentials(&kiam, "10.0.0.1", "red").await, Err((code, "Code: text".to_owned())));
        let notices = kiam.notices.0.lock().unwrap();
        assert_eq!(*notices, [Notice::CredentialError { explanation: "Code: text".to_owned() }]);
    }
}

#[tokio::test]
async fn health_is_ok_once_the_cluster_is_listed() {
    let health = async |kiam: &TestKiam| kiam.get_health(Request::new(proto::GetHealthRequest {})).await;
    assert_eq!(health(&kiam(vec![], None)).await.unwrap().into_inner().message, "ok");
    let unsynced = kiam(vec![Err(LookupError::NotSynced)], None);
    assert_eq!(health(&unsynced).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(role(&unsynced, "10.0.0.1", None).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(credentials(&unsynced, "10.0.0.1", "red").await.unwrap_err().0, Code::Unavailable);
}

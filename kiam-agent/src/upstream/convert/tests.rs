//! Answers and errors of both servers, and their conversion.

use super::*;
use crate::{attestation::PodUid, source::AttestedPod};

fn caller(age_ms: Option<u64>) -> Caller {
    // At NOW_MS.
    let address = Some([10, 0, 0, 7].into());
    Caller { address, pod: None, interface_first_seen_ms: age_ms.map(|age| NOW_MS - age) }
}

const UID: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";

fn attested(uid: &str, must_match: bool, age_ms: Option<u64>) -> Caller {
    let pod = AttestedPod { uid: PodUid::parse(uid).unwrap(), must_match };
    Caller { pod: Some(pod), ..caller(age_ms) }
}

const NOW_MS: u64 = 1_000_000;

fn role(seen_for_ms: Option<u64>) -> proto::Role {
    let seen = seen_for_ms.map(|for_ms| Seen {
        pod_namespace: "default".into(),
        pod_name: "pod-a".into(),
        pod_uid: UID.into(),
        for_ms,
    });
    proto::Role { name: "role-a".into(), seen }
}

/// Returns the verdict in one word.
fn word<T>(verdict: Verdict<T>) -> String {
    match verdict {
        Verdict::Final(Ok(Found { pod, .. })) => format!("found {:?}", pod.map(|pod| pod.name)),
        Verdict::Final(Err(error)) => format!("{error:?}"),
        Verdict::Later(error) => format!("later {error:?}"),
        Verdict::Lost(_) => "lost".to_owned(),
    }
}

#[test]
fn pod_older_than_the_interface_is_not_the_caller() {
    for (seen_for_ms, age_ms, wanted) in [
        (Some(0), Some(0), r#"found Some("pod-a")"#),
        (Some(400), Some(500), r#"found Some("pod-a")"#),
        (Some(500), Some(500), r#"found Some("pod-a")"#),
        (Some(501), Some(500), "later Stale"),
        (Some(u64::MAX), Some(500), "later Stale"),
        (Some(u64::MAX), None, r#"found Some("pod-a")"#),
        (None, None, "found None"),
        (None, Some(500), "Unverified"),
        (None, Some(0), "Unverified"),
    ] {
        let verdict = verdict(Ok(Response::new(role(seen_for_ms))), caller(age_ms), NOW_MS);
        assert_eq!(word(verdict), wanted, "seen for {seen_for_ms:?}, interface of {age_ms:?}");
    }
}

#[test]
fn uid_decides_where_it_is_known() {
    const OTHER: &str = "11111111-2222-4333-8444-bbbbbbbbbbbb";
    for (seen_for_ms, uid, must_match, age_ms, wanted) in [
        (Some(0), UID, false, None, r#"found Some("pod-a")"#),
        // The interface was created again, the pod was not.
        (Some(u64::MAX), UID, false, Some(5), r#"found Some("pod-a")"#),
        (Some(u64::MAX), UID, true, Some(5), r#"found Some("pod-a")"#),
        // The server looks up the address alone.
        (Some(0), OTHER, false, None, "later Stale"),
        (Some(0), OTHER, true, Some(500), "later Stale"),
        // kiam's own server.
        (None, UID, false, None, "found None"),
        (None, UID, false, Some(500), "Unverified"),
        (None, UID, true, None, "Unverified"),
    ] {
        let verdict = verdict(Ok(Response::new(role(seen_for_ms))), attested(uid, must_match, age_ms), NOW_MS);
        assert_eq!(word(verdict), wanted, "seen for {seen_for_ms:?}, {uid}, {must_match}, interface of {age_ms:?}");
    }
}

#[test]
fn errors_of_kiams_server() {
    for (code, text, wanted) in [
        (Code::Unknown, "pod not found", "later NotKnownYet"),
        (Code::Unknown, "no pod found", "later NotKnownYet"),
        (Code::Unknown, "multiple running pods found", "Ambiguous"),
        (Code::Unknown, "forbidden by policy", "Forbidden"),
        (Code::PermissionDenied, "another node's pod", "Forbidden"),
        (Code::PermissionDenied, proto::CONTRADICTION, "Contradiction"),
        (Code::Unknown, "role can't be empty", "NoRole"),
        (Code::Unknown, "context deadline exceeded", "TimedOut"),
        (Code::Unknown, "context canceled", "TimedOut"),
        (Code::DeadlineExceeded, "", "TimedOut"),
        (Code::Cancelled, "", "TimedOut"),
        (Code::Unavailable, "not synced", "later Unreachable"),
        (Code::Unknown, "pod not found!", r#"Upstream { message: "pod not found!" }"#),
        (Code::Unknown, "error parsing regexp: x", r#"Upstream { message: "error parsing regexp: x" }"#),
        (Code::Unknown, "AccessDenied: y", r#"Upstream { message: "AccessDenied: y" }"#),
        (Code::Internal, "z", r#"Upstream { message: "z" }"#),
        (Code::Unimplemented, "", r#"Upstream { message: "" }"#),
    ] {
        let outcome: Result<Response<proto::Role>, _> = Err(Status::new(code, text));
        assert_eq!(word(verdict(outcome, caller(None), NOW_MS)), wanted, "{code:?} {text}");
    }
}

#[test]
fn local_failure_is_not_the_servers() {
    let mut status = Status::new(Code::Unknown, "pod not found");
    status.set_source(std::sync::Arc::new(std::io::Error::other("broken pipe")));
    let outcome: Result<Response<proto::Role>, _> = Err(status);
    assert_eq!(word(verdict(outcome, caller(None), NOW_MS)), "lost");
}

#[test]
fn long_messages_are_cut() {
    let text = "é".repeat(MESSAGE_LEN_MAX);
    assert_eq!(shortened(&text).len(), MESSAGE_LEN_MAX);
    assert_eq!(shortened(&format!("x{text}")).len(), MESSAGE_LEN_MAX - 1);
}

fn sent() -> proto::Credentials {
    proto::Credentials {
        code: "Success".into(),
        r#type: "AWS-HMAC".into(),
        access_key_id: "ASIAEXAMPLE".into(),
        secret_access_key: "secret".into(),
        token: "token".into(),
        expiration: "2026-11-21T09:16:34Z".into(),
        last_updated: "2026-11-21T08:16:34Z".into(),
        seen: None,
    }
}

#[test]
fn only_complete_unexpired_credentials_are_used() {
    let now: Timestamp = "2026-11-21T09:16:33Z".parse().unwrap();
    let good = credentials(sent(), now).unwrap();
    assert_eq!((good.access_key_id.as_str(), good.session_token.expose().as_str()), ("ASIAEXAMPLE", "token"));
    assert_eq!(good.last_updated, "2026-11-21T08:16:34Z".parse().unwrap());
    let odd = proto::Credentials { last_updated: "yesterday".into(), ..sent() };
    assert_eq!(credentials(odd, now).unwrap().last_updated, now);

    let expiry = "2026-11-21T09:16:34Z".parse().unwrap();
    assert!(matches!(credentials(sent(), expiry), Err(SourceError::Unusable { what }) if what.contains("expired")));
    for bad in [
        proto::Credentials { code: "Failed".into(), ..sent() },
        proto::Credentials { code: String::new(), ..sent() },
        proto::Credentials { access_key_id: String::new(), ..sent() },
        proto::Credentials { secret_access_key: String::new(), ..sent() },
        proto::Credentials { token: String::new(), ..sent() },
        proto::Credentials { expiration: String::new(), ..sent() },
        proto::Credentials { expiration: "tomorrow".into(), ..sent() },
    ] {
        assert!(matches!(credentials(bad, now), Err(SourceError::Unusable { .. })));
    }
}

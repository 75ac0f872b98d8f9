//! Conversion between the domain and the messages of `kiam.proto`.

use crate::core::{
    credentials::Credentials,
    ids::PodUid,
    lookup::{Found, Origin, Query},
};
use jiff::Timestamp;
use kiam_common::proto;
use std::{net::IpAddr, time::Duration};

/// Builds the lookup of a request; `None` if the request identifies no pod.
pub(super) fn query(ip: &str, caller: Option<&proto::Caller>) -> Option<Query> {
    Some(Query {
        origin: origin(ip, caller.and_then(|caller| caller.pod_uid.as_deref()))?,
        interface_age: caller.and_then(|caller| caller.interface_age_ms).map(Duration::from_millis),
        // kiam's agents, which send no caller, retry on their own.
        wait: caller.map_or(Duration::ZERO, |caller| Duration::from_millis(caller.wait_ms)),
    })
}

/// Returns `None` for an empty uid: it identifies no pod, and must not be treated as an absent one.
fn origin(ip: &str, pod_uid: Option<&str>) -> Option<Origin> {
    let uid = match pod_uid {
        Some(uid) => Some(PodUid::parse(uid)?),
        None => None,
    };
    if let (true, Some(uid)) = (ip.is_empty(), &uid) {
        return Some(Origin::Uid(uid.clone()));
    }
    let address = ip.parse::<IpAddr>().ok()?.to_canonical();
    Some(match uid {
        Some(uid) => Origin::Both(address, uid),
        None => Origin::Address(address),
    })
}

/// Returns the pod that the response is for, unless the request comes from an agent of kiam.
pub(super) fn seen(found: &Found, caller: Option<&proto::Caller>) -> Option<proto::Seen> {
    caller.map(|_| proto::Seen {
        pod_namespace: found.pod.namespace.clone(),
        pod_name: found.pod.name.clone(),
        pod_uid: found.pod.uid.as_str().to_owned(),
        for_ms: u64::try_from(found.seen_for.as_millis()).unwrap_or(u64::MAX),
    })
}

pub(super) fn credentials(credentials: &Credentials, seen: Option<proto::Seen>) -> proto::Credentials {
    proto::Credentials {
        code: "Success".to_owned(),
        r#type: "AWS-HMAC".to_owned(),
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.expose().clone(),
        token: credentials.session_token.expose().clone(),
        expiration: time(credentials.expires),
        last_updated: time(credentials.issued),
        seen,
    }
}

/// Formats a time as the IMDS does: `2026-01-02T03:04:05Z`.
fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

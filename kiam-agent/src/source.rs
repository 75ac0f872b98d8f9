//! Where credentials come from, as the metadata face sees it: who asks, and what can be the answer.

use crate::attestation::PodUid;
use jiff::Timestamp;
use kiam_common::secret::Secret;
use std::{future::Future, net::IpAddr};
use tokio::time::Instant;

/// Who asks, as the kernel tells: an address, a pod, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The connection's peer address, never v4-mapped; `None` where it tells nothing: on the node's network it is
    /// no pod's, and of [`crate::vpc_cni`] Kubernetes does not know.
    pub(crate) address: Option<IpAddr>,
    /// The pod whose cgroup the connection was opened in; `None` where the kernel cannot tell.
    pub(crate) pod: Option<AttestedPod>,
    /// When the connection's interface appeared, milliseconds of `CLOCK_MONOTONIC`; `None`: before the agent started.
    pub(crate) interface_born_ms: Option<u64>,
}

/// A pod that the kernel has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttestedPod {
    /// Its UID.
    pub(crate) uid: PodUid,
    /// Whether an answer counts only when it says that it is for this pod. kiam's own server does not say.
    pub(crate) must_match: bool,
}

impl Caller {
    /// For how long the connection's interface has existed at `now_ms`; `None`: for longer than the agent.
    pub(crate) fn interface_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.interface_born_ms.map(|born| now_ms.saturating_sub(born))
    }
}

/// Looks up callers' roles and credentials. Every call ends by its deadline.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// The role that the caller's pod is annotated with, verbatim; empty when there is none.
    fn role(
        &self,
        caller: Caller,
        deadline: Instant,
    ) -> impl Future<Output = Result<Found<String>, SourceError>> + Send;

    /// Credentials of `role`, if the caller's pod may have them.
    fn credentials(
        &self,
        caller: Caller,
        role: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Found<Credentials>, SourceError>> + Send;
}

/// What was found, and for which pod.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// What was asked for.
    pub(crate) value: T,
    /// The caller's pod, if the server names it.
    pub(crate) pod: Option<Pod>,
}

/// A pod, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What STS gave for a role.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// Not secret: it names the credentials in logs and in CloudTrail.
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret<String>,
    pub(crate) session_token: Secret<String>,
    /// Always in the future when they are handed out.
    pub(crate) expiration: Timestamp,
    /// When STS issued them.
    pub(crate) last_updated: Timestamp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// No pod is known at the caller's address; it may be a new one.
    #[error("no pod is known at this address yet")]
    NotKnownYet,
    /// A pod is known there, but for longer than the connection's interface exists: it is not the caller.
    #[error("the pod known at this address is older than the connection's interface")]
    Stale,
    /// The caller's cgroup is one pod's, its address another's.
    #[error("the address and the cgroup are of different pods")]
    Contradiction,
    /// More than one pod is known at the caller's address.
    #[error("several pods are known at this address")]
    Ambiguous,
    /// The server does not say which pod it answers for (kiam's own server does not), and that it is the caller is not
    /// sure without: the interface is young enough for the address to have been another pod's, or the pod is to be known
    /// by its cgroup.
    #[error("the server does not say which pod it answers for, and the address alone is not enough")]
    Unverified,
    /// The pod has no role.
    #[error("the pod is annotated with no role")]
    NoRole,
    /// The pod may not have this role.
    #[error("forbidden by policy")]
    Forbidden,
    /// The server could not get the credentials; its words.
    #[error("the server says: {message}")]
    Upstream { message: String },
    /// What the server sent can't be handed out.
    #[error("the server's answer cannot be used: {what}")]
    Unusable { what: &'static str },
    /// No server can be reached.
    #[error("no server can be reached")]
    Unreachable,
    /// The time for this request was over before the server answered.
    #[error("the server did not answer in time")]
    TimedOut,
}

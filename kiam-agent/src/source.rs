//! The source of roles and credentials, as the IMDS uses it: the caller, the answers and the errors.

use crate::attestation::PodUid;
use jiff::Timestamp;
use kiam_common::secret::Secret;
use std::{future::Future, net::IpAddr};
use tokio::time::Instant;

/// The caller, from kernel evidence: an address, a pod, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The connection's peer address, never v4-mapped. `None` if it does not identify a pod: on the node's network, and
    /// for addresses of [`crate::vpc_cni`].
    pub(crate) address: Option<IpAddr>,
    /// The pod of the cgroup in which the connection was opened; `None` if the kernel cannot report it.
    pub(crate) pod: Option<AttestedPod>,
    /// Time at which the connection's interface appeared, milliseconds of `CLOCK_MONOTONIC`; `None` if it existed
    /// before the agent started.
    pub(crate) interface_first_seen_ms: Option<u64>,
}

/// A pod identified by its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttestedPod {
    pub(crate) uid: PodUid,
    /// True if only an answer that names this pod counts. kiam's own server does not name it.
    pub(crate) must_match: bool,
}

impl Caller {
    /// Returns the age of the connection's interface at `now_ms`; `None` if it is older than the agent.
    pub(crate) fn interface_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.interface_first_seen_ms.map(|first_seen_ms| now_ms.saturating_sub(first_seen_ms))
    }
}

/// Looks up the roles and credentials of callers. Every call returns by its deadline.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// Returns the role in the annotation of the caller's pod, unchanged; empty without one.
    fn role(
        &self,
        caller: Caller,
        deadline: Instant,
    ) -> impl Future<Output = Result<Found<String>, SourceError>> + Send;

    /// Returns credentials of `role` if the caller's pod may have them.
    fn credentials(
        &self,
        caller: Caller,
        role: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Found<Credentials>, SourceError>> + Send;
}

/// The result of a look-up, with its pod.
#[derive(Debug)]
pub(crate) struct Found<T> {
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

/// Credentials of a role, from STS.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// Identifier of the credentials in logs and in CloudTrail, not secret.
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret<String>,
    pub(crate) session_token: Secret<String>,
    /// Time of expiry, always in the future when they are returned.
    pub(crate) expiration: Timestamp,
    /// Time of issue.
    pub(crate) last_updated: Timestamp,
}

/// A reason why a look-up failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The server does not know the pod yet; it may be new.
    #[error("no pod is known at this address yet")]
    NotKnownYet,
    /// The pod known at the address is older than the connection's interface, so it is not the caller.
    #[error("the pod known at this address is older than the connection's interface")]
    Stale,
    /// The caller's cgroup and address belong to different pods.
    #[error("the address and the cgroup belong to different pods")]
    Contradiction,
    /// More than one pod is known at the caller's address.
    #[error("several pods are known at this address")]
    Ambiguous,
    /// The server does not name the pod of its answer (kiam's own server never does), and the answer could be for
    /// another pod: the interface is younger than the agent, so that its address may have been another pod's, or the
    /// pod must be identified by its cgroup.
    #[error("the server does not name the pod it answers for, and the address alone is not enough")]
    Unverified,
    /// The pod has no role.
    #[error("the pod is annotated with no role")]
    NoRole,
    /// The pod may not have this role.
    #[error("forbidden by policy")]
    Forbidden,
    /// The server could not get the credentials; contains its message.
    #[error("error of the server: {message}")]
    Upstream { message: String },
    /// The credentials that the server sent cannot be used.
    #[error("the server's answer cannot be used: {what}")]
    Unusable { what: &'static str },
    /// No server can be reached.
    #[error("no server can be reached")]
    Unreachable,
    /// The server did not answer by the deadline.
    #[error("the server did not answer in time")]
    TimedOut,
}

//! What the domain asks of the outside; implemented by the Kubernetes watch, STS, the cache and the clock.

use super::{
    credentials::{Credentials, Identity},
    ids::PodUid,
    namespace::NamespaceFacts,
    pod::PodFacts,
};
use jiff::Timestamp;
use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

/// A future behind a trait object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time of day. Injected, so that tests own it.
pub(crate) trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// Who asks: the address of a pod, and what the agent's kernel knows of the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asker {
    pub(crate) origin: Origin,
    /// How long ago the interface of the connection appeared. A pod that was seen at the address before that is
    /// another one, whose address was given away.
    pub(crate) interface_age: Option<Duration>,
    /// How long to wait for the watch to show a pod.
    pub(crate) wait: Duration,
}

/// How a pod is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// By its address.
    Address(IpAddr),
    /// By the cgroup that the connection came from, at its address.
    Both(IpAddr, PodUid),
    /// By its cgroup alone: its address is not its own (the node's network), or none that Kubernetes knows.
    Uid(PodUid),
}

/// The one pod that asks.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) pod: Arc<PodFacts>,
    /// `None`: the watch hasn't shown it.
    pub(crate) namespace: Option<Arc<NamespaceFacts>>,
    /// How long ago this pod was first seen at this address; zero for one that is known by its cgroup alone.
    pub(crate) seen_for: Duration,
}

/// Why no pod was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("the pods of the cluster are not known yet")]
    NotSynced,
    #[error("no such pod is known")]
    NotFound,
    #[error("several pods are known at this address")]
    Ambiguous,
    #[error("the pod with this uid is known, and not at this address")]
    Contradiction,
}

/// Finds pods by address.
pub(crate) trait PodLookup: Send + Sync + 'static {
    /// Whether every pod and namespace was seen once.
    fn is_synced(&self) -> bool;

    /// The one pod that asks, waited for as long as the asker says.
    fn find(&self, asker: Asker) -> impl Future<Output = Result<Found, LookupError>> + Send;
}

/// A pod whose prospects changed: it appeared, its annotations or its namespace's changed, or it is gone.
#[derive(Clone, Debug)]
pub(crate) struct PodChange {
    pub(crate) pod: PodUid,
    /// `None`: it is gone.
    pub(crate) now: Option<(Arc<PodFacts>, Option<Arc<NamespaceFacts>>)>,
}

/// Tells which pods changed. Level-triggered: several changes of a pod are one, and none is lost.
pub(crate) trait PodChanges: Send + Sync + 'static {
    /// Waits until something changed since `seen`, and moves that on.
    fn changed(&self, seen: &mut u64) -> impl Future<Output = ()> + Send;

    /// At most `max` pods that changed since they were last taken.
    fn take(&self, max: usize) -> Vec<PodChange>;
}

/// What kind of failure it was, and so how long to leave it alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureClass {
    /// The role's trust or our own permissions say no: asking again soon changes nothing.
    AccessDenied,
    /// STS asks for fewer calls.
    Throttled,
    /// Network, time-out, a fault of STS.
    Transient,
    /// Anything else that STS answers: a malformed request, a region that is switched off.
    Other,
}

/// Why there are no credentials for an identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CredentialError {
    pub(crate) class: FailureClass,
    /// `Code: message` as AWS gave it, or what went wrong on the way; one line, nothing secret.
    pub(crate) message: String,
}

/// Makes credentials: STS.
pub(crate) trait CredentialProvider: Send + Sync + 'static {
    fn assume<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Credentials, CredentialError>>;
}

/// Has credentials: the cache.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// Valid credentials of this identity.
    fn credentials(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<Arc<Credentials>, CredentialError>> + Send;
}

/// What is told to the people behind a pod, as an Event of Kubernetes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Notice {
    /// Policy forbids it.
    RoleForbidden { requested: String, explanation: String },
    /// STS refuses, or can't be reached.
    CredentialError { explanation: String },
}

/// Tells it. Never waits: what can't be taken is dropped and counted.
pub(crate) trait NoticeSink: Send + Sync + 'static {
    fn notify(&self, pod: &Arc<PodFacts>, notice: Notice);
}

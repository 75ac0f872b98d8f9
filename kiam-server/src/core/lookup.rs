//! Looking up the pod of a request, and following changes of pods; implemented by the Kubernetes watch.

use super::{ids::PodUid, namespace::NamespaceFacts, pod::PodFacts};
use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

/// A lookup: the identifiers of the calling pod, and what the agent's kernel reported of the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Query {
    pub(crate) origin: Origin,
    /// Time since the interface of the connection appeared. A pod seen at the address before that is a former owner of
    /// the address, not the caller.
    pub(crate) interface_age: Option<Duration>,
    /// Longest wait for the watch to deliver the pod.
    pub(crate) wait: Duration,
}

/// Identifiers of the calling pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// Its address.
    Address(IpAddr),
    /// Its address, and the uid from the cgroup of the connection.
    Both(IpAddr, PodUid),
    /// The uid from the cgroup alone: the address is the node's, or one that Kubernetes does not list.
    Uid(PodUid),
}

/// The pod that a lookup found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) pod: Arc<PodFacts>,
    /// `None`: the watch has not delivered it.
    pub(crate) namespace: Option<Arc<NamespaceFacts>>,
    /// Time since this pod was first seen at this address; zero for a pod found by its uid alone.
    pub(crate) seen_for: Duration,
}

/// Reason why a lookup found no pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("pods and namespaces have not been listed yet")]
    NotSynced,
    #[error("no such pod in the cluster")]
    NotFound,
    #[error("several pods have this address")]
    Ambiguous,
    #[error("the pod with this uid is not at this address")]
    Contradiction,
}

/// Finds the pod of a request.
pub(crate) trait PodLookup: Send + Sync + 'static {
    /// Returns `true` once pods and namespaces have been listed.
    fn is_synced(&self) -> bool;

    /// Finds the one active pod that matches, waiting up to [`Query::wait`] for it to appear.
    fn find(&self, query: Query) -> impl Future<Output = Result<Found, LookupError>> + Send;
}

/// A pod that appeared or disappeared, or whose annotations or namespace changed.
#[derive(Clone, Debug)]
pub(crate) struct PodChange {
    pub(crate) pod: PodUid,
    /// `None`: the pod is gone.
    pub(crate) now: Option<(Arc<PodFacts>, Option<Arc<NamespaceFacts>>)>,
}

/// Lists the pods that changed. Level-triggered: several changes of a pod are one, and no pod is missed.
pub(crate) trait PodChanges: Send + Sync + 'static {
    /// Waits until something has changed since version `seen`, and updates `seen`.
    fn changed(&self, seen: &mut u64) -> impl Future<Output = ()> + Send;

    /// Takes at most `max` pods that changed since they were last taken.
    fn take(&self, max: usize) -> Vec<PodChange>;
}

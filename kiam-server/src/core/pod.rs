//! The facts kept of a pod.

use super::ids::PodUid;
use std::net::IpAddr;

/// A pod, as last received from the API server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PodFacts {
    pub(crate) uid: PodUid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its own addresses, of all families. Empty for a pod on the node's network: the node's address identifies no pod.
    pub(crate) addresses: Vec<IpAddr>,
    /// `true` for a hostNetwork pod.
    pub(crate) on_node_network: bool,
    /// Neither succeeded nor failed. A pod that is being deleted is active until it is gone.
    pub(crate) active: bool,
    /// Name of the node; empty until scheduled.
    pub(crate) node: String,
    /// The annotations as written; the policy interprets them.
    pub(crate) role: Option<String>,
    pub(crate) session_name: Option<String>,
    pub(crate) external_id: Option<String>,
}

impl PodFacts {
    /// Returns the annotated role; an empty annotation counts as absent.
    pub(crate) fn wanted_role(&self) -> Option<&str> {
        self.role.as_deref().filter(|role| !role.is_empty())
    }
}

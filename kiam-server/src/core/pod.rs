//! The few things that we keep of a pod.

use super::ids::PodUid;
use std::net::IpAddr;

/// A pod, as the API server last told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PodFacts {
    pub(crate) uid: PodUid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its own addresses, of all families. Empty for a pod on the node's network: the node's address is nobody's.
    pub(crate) addresses: Vec<IpAddr>,
    /// It shares the node's network.
    pub(crate) on_node_network: bool,
    /// Neither succeeded nor failed. A pod that is being deleted runs until it is gone.
    pub(crate) active: bool,
    /// Of the node that it was put on; empty before.
    pub(crate) node: String,
    /// The annotations as they are written; what they mean is the policy's to say.
    pub(crate) role: Option<String>,
    pub(crate) session_name: Option<String>,
    pub(crate) external_id: Option<String>,
}

impl PodFacts {
    /// The role that it is annotated with; an empty annotation is none.
    pub(crate) fn wanted_role(&self) -> Option<&str> {
        self.role.as_deref().filter(|role| !role.is_empty())
    }
}

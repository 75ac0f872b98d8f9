//! The node of the demo and its three pods.

use super::progress::Progress;
use anyhow::Result;
use kiam_tests::{
    fakes::kube_api::{NamespaceObject, PodObject},
    node::topology::PodNetwork,
    system::System,
};

/// Namespace of all three pods.
pub(super) const NAMESPACE: &str = "payments";
/// Roles that the namespace permits: an expression for whole role ARNs.
pub(super) const PERMITTED_ROLES: &str = ".*:role/payments-.*";

/// Definition of a pod.
#[derive(Debug, Clone, Copy)]
struct Part {
    name: &'static str,
    number: u8,
    role: Option<&'static str>,
}

/// Its role is permitted by the namespace.
const PERMITTED: Part = Part { name: "permitted", number: 1, role: Some("payments-reader") };
/// Its role is not permitted by the namespace.
const FORBIDDEN: Part = Part { name: "forbidden", number: 2, role: Some("cluster-admin") };
/// It has no role.
const NO_ROLE: Part = Part { name: "no-role", number: 3, role: None };

/// A pod of the demo.
#[derive(Debug)]
pub(super) struct Pod {
    /// Name in Kubernetes.
    pub(super) name: &'static str,
    /// Role of its annotation.
    pub(super) role: Option<&'static str>,
    /// Network namespace.
    pub(super) network: PodNetwork,
}

/// The node and the pods.
#[derive(Debug)]
pub(super) struct Cast {
    // Dropped in this order: the interfaces before the node.
    /// Pod with a permitted role.
    pub(super) permitted: Pod,
    /// Pod with a forbidden role.
    pub(super) forbidden: Pod,
    /// Pod without a role.
    pub(super) no_role: Pod,
    /// The node, the fakes around it, and the binaries on it.
    pub(super) system: System,
}

impl Cast {
    /// Makes the node, the fakes and the pods; neither the server nor the agent runs yet.
    pub(super) fn assemble(progress: &Progress) -> Result<Self> {
        let system =
            progress.step("creating network namespaces, a fake IMDS, a fake Kubernetes API and STS", System::stage)?;
        system.kube.put_namespace(&NamespaceObject::permitting(NAMESPACE, PERMITTED_ROLES));
        let pod = |part: Part| -> Result<Pod> {
            let Part { name, number, role } = part;
            let network = system.topology.add_pod(number)?;
            system.kube.put_pod(&PodObject::running(NAMESPACE, name, role, network.v4, network.v6));
            Ok(Pod { name, role, network })
        };
        let (permitted, forbidden, no_role) =
            progress.step("adding three pods", || Ok((pod(PERMITTED)?, pod(FORBIDDEN)?, pod(NO_ROLE)?)))?;
        Ok(Self { permitted, forbidden, no_role, system })
    }

    /// Returns all pods.
    pub(super) fn pods(&self) -> [&Pod; 3] {
        [&self.permitted, &self.forbidden, &self.no_role]
    }
}

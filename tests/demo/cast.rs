//! The node of the demo and its three pods.

use super::progress::Progress;
use anyhow::Result;
use kiam_tests::{
    fakes::kube_api::{NamespaceObject, PodObject},
    node::topology::PodNetwork,
    system::System,
};

/// The namespace of all three.
pub(super) const NAMESPACE: &str = "payments";
/// The roles that the namespace may have: an expression for whole role ARNs.
pub(super) const PERMITTED_ROLES: &str = ".*:role/payments-.*";

/// One of the pods, as it was written down.
#[derive(Debug, Clone, Copy)]
struct Part {
    name: &'static str,
    number: u8,
    role: Option<&'static str>,
}

/// Asks for a role that its namespace permits.
const PERMITTED: Part = Part { name: "permitted", number: 1, role: Some("payments-reader") };
/// Asks for one that it doesn't.
const FORBIDDEN: Part = Part { name: "forbidden", number: 2, role: Some("cluster-admin") };
/// Asks for none.
const NO_ROLE: Part = Part { name: "no-role", number: 3, role: None };

/// A pod of the demo.
#[derive(Debug)]
pub(super) struct Pod {
    /// Its name in Kubernetes.
    pub(super) name: &'static str,
    /// The role that it is annotated with.
    pub(super) role: Option<&'static str>,
    /// Its network namespace.
    pub(super) network: PodNetwork,
}

/// Everything on the stage.
#[derive(Debug)]
pub(super) struct Cast {
    // Dropped in this order: the interfaces go before the node.
    /// The pod whose role is permitted.
    pub(super) permitted: Pod,
    /// The pod whose role is not.
    pub(super) forbidden: Pod,
    /// The pod without a role.
    pub(super) no_role: Pod,
    /// The node, the stand-ins around it, and the binaries on it.
    pub(super) system: System,
}

impl Cast {
    /// Makes the node, the stand-ins and the pods; neither server nor agent runs yet.
    pub(super) fn assemble(progress: &Progress) -> Result<Self> {
        let system = progress.step("making namespaces, stand-in IMDS, Kubernetes API and STS", System::stage)?;
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

    /// All pods.
    pub(super) fn pods(&self) -> [&Pod; 3] {
        [&self.permitted, &self.forbidden, &self.no_role]
    }
}

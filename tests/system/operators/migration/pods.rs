//! The pods that send the requests, each behind an interface of its own.

use anyhow::Result;
use kiam_tests::{
    fakes::{
        kube_api::{NamespaceObject, PodObject},
        sts::ACCOUNT,
    },
    node::topology::PodNetwork,
    system::System,
};

/// A pod that sends requests.
pub(super) struct Caller {
    /// Name in the tables.
    pub(super) name: &'static str,
    pub(super) network: PodNetwork,
    /// End of the ARN of its sessions: role and session name.
    pub(super) session: &'static str,
}

/// A pod's properties in Kubernetes.
struct Known {
    name: &'static str,
    namespace: &'static str,
    role: Option<&'static str>,
    session: &'static str,
}

/// Pods with regular objects; [`add_all`] makes the others.
const KNOWN: [Known; 12] = [
    known("role-a", "default", "role-a", "role-a/kiam-kiam"),
    Known { name: "no-role", namespace: "default", role: None, session: "" },
    known("empty-annotation", "default", "", ""),
    known("forbidden", "limited", "role-b", ""),
    known("allowed", "limited", "allowed-1", "allowed-1/kiam-kiam"),
    known("nothing-permitted", "closed", "role-a", ""),
    known("arn", "default", "arn:aws:iam::123456789012:role/team/role-c", "role-c/kiam-kiam"),
    known("path", "default", "team/role-d", "role-d/kiam-kiam"),
    known("other-account", "default", "arn:aws:iam::999999999999:role/other", "other/kiam-kiam"),
    known("succeeded", "default", "role-a", ""),
    known("sts-denies", "default", super::sts_gate::DENIED, ""),
    known("session", "default", "role-e", "role-e/kiam-named"),
];

const fn known(name: &'static str, namespace: &'static str, role: &'static str, session: &'static str) -> Known {
    Known { name, namespace, role: Some(role), session }
}

/// Makes all pods. The two at one address, and the one without an object, come last.
pub(super) fn add_all(system: &System) -> Result<Vec<Caller>> {
    system.kube.put_namespace(&NamespaceObject::permitting("default", ".*"));
    let allowed = format!("arn:aws:iam::{ACCOUNT}:role/allowed-.*");
    system.kube.put_namespace(&NamespaceObject::permitting("limited", &allowed));
    system.kube.put_namespace(&NamespaceObject { name: "closed".to_owned(), permitted: None });
    let mut callers = Vec::new();
    for (number, Known { name, namespace, role, session }) in (1..).zip(KNOWN) {
        let network = system.topology.add_pod(number)?;
        let mut pod = PodObject::running(namespace, name, role, network.v4, network.v6);
        match name {
            "succeeded" => pod.phase = "Succeeded".to_owned(),
            "session" => {
                let note = |key: &str, value: &str| (format!("iam.amazonaws.com/{key}"), value.to_owned());
                pod.annotations = vec![note("session-name", "named"), note("external-id", "external")];
            }
            _ => {}
        }
        system.kube.put_pod(&pod);
        callers.push(Caller { name, network, session });
    }
    let shared = system.topology.add_pod(100)?;
    for name in ["one", "two"] {
        system.kube.put_pod(&PodObject::running("default", name, Some("role-a"), shared.v4, shared.v6));
    }
    callers.push(Caller { name: "shared-address", network: shared, session: "" });
    callers.push(Caller { name: "unknown", network: system.topology.add_pod(101)?, session: "" });
    Ok(callers)
}

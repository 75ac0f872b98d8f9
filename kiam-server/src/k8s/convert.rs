//! Conversion of Kubernetes objects to the facts that the server keeps.

use crate::core::{
    annotations,
    ids::PodUid,
    namespace::{Anchoring, NamespaceFacts, Permitted},
    pod::PodFacts,
    text::cut,
};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::net::IpAddr;

/// Longest annotation that is kept of a pod, bytes: twice the longest ARN. A longer one is invalid, and still is after
/// the cut.
const ANNOTATION_LEN_MAX: usize = 4096;

/// Reason why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConvertError {
    #[error("it has no {0}")]
    Lacks(&'static str),
}

/// Namespace and name of a pod; unique at any time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl PodName {
    pub(super) fn of(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
    }
}

pub(super) fn pod(pod: Pod) -> Result<PodFacts, ConvertError> {
    let Pod { mut metadata, spec, status } = pod;
    let mut annotation = |key: &str| {
        let value = metadata.annotations.as_mut().and_then(|all| all.remove(key));
        value.map(|value| cut(value, ANNOTATION_LEN_MAX))
    };
    let (role, session_name, external_id) =
        (annotation(annotations::ROLE), annotation(annotations::SESSION_NAME), annotation(annotations::EXTERNAL_ID));
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let on_node_network = spec.host_network.unwrap_or(false);
    Ok(PodFacts {
        uid: metadata.uid.as_deref().and_then(PodUid::parse).ok_or(ConvertError::Lacks("uid"))?,
        namespace: metadata.namespace.ok_or(ConvertError::Lacks("namespace"))?,
        name: metadata.name.ok_or(ConvertError::Lacks("name"))?,
        addresses: if on_node_network { Vec::new() } else { addresses(&status) },
        on_node_network,
        active: !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        node: spec.node_name.unwrap_or_default(),
        role,
        session_name,
        external_id,
    })
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let first = status.pod_ip.iter().map(String::as_str);
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> =
        first.chain(all).filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Converts a namespace. `known` are its previous facts: an unchanged expression is not compiled again.
pub(super) fn namespace(
    mut namespace: Namespace,
    anchoring: Anchoring,
    known: Option<&NamespaceFacts>,
) -> Result<NamespaceFacts, ConvertError> {
    let name = namespace.metadata.name.ok_or(ConvertError::Lacks("name"))?;
    let expression =
        namespace.metadata.annotations.as_mut().and_then(|all| all.remove(annotations::PERMITTED)).unwrap_or_default();
    let permitted = match known {
        Some(known) if known.permitted.is_of(&expression) => known.permitted.clone(),
        _ => Permitted::compile(&expression, anchoring),
    };
    Ok(NamespaceFacts { name, permitted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: serde_json::Value) -> Result<PodFacts, ConvertError> {
        pod(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_pod_is_reduced_to_facts() {
        let facts = of(json!({
            "metadata": {"uid": "u1", "namespace": "ns", "name": "p", "annotations": {
                "iam.amazonaws.com/role": "red", "iam.amazonaws.com/external-id": "id", "other": "x"}},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]},
        }))
        .unwrap();
        assert_eq!(facts.addresses, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!((facts.role.as_deref(), facts.external_id.as_deref()), (Some("red"), Some("id")));
        assert_eq!((facts.session_name, facts.node.as_str(), facts.active), (None, "n1", true));
    }

    #[test]
    fn long_annotations_are_cut_and_stay_invalid() {
        let value = json!({"metadata": {"uid": "u", "namespace": "n", "name": "p",
            "annotations": {"iam.amazonaws.com/role": "x".repeat(200_000)}}});
        let facts = of(value).unwrap();
        assert_eq!(facts.role.as_ref().unwrap().len(), ANNOTATION_LEN_MAX);
        let base = crate::core::role::RoleBase::parse("arn:aws:iam::123456789012:role/").unwrap();
        assert!(base.resolve(facts.wanted_role().unwrap()).is_err());
    }

    #[test]
    fn host_network_and_ended_pods() {
        let value = |host: bool, phase: &str| {
            json!({
                "metadata": {"uid": "u1", "namespace": "ns", "name": "p"},
                "spec": {"containers": [], "hostNetwork": host},
                "status": {"phase": phase, "podIP": "10.0.0.7", "podIPs": [{"ip": "::ffff:10.0.0.7"}, {"ip": "what"}]},
            })
        };
        assert!(of(value(true, "Running")).unwrap().addresses.is_empty());
        assert_eq!(of(value(false, "Running")).unwrap().addresses.len(), 1);
        for (phase, active) in [("Pending", true), ("Unknown", true), ("Succeeded", false), ("Failed", false)] {
            assert_eq!(of(value(false, phase)).unwrap().active, active, "{phase}");
        }
        assert!(of(json!({"metadata": {"namespace": "ns", "name": "p"}})).is_err());
    }
}

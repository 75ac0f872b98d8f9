//! Pods and namespaces as a kubelet and a user make them: every field that a client may read, and some ballast.

use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Annotation of a pod: its role.
const ROLE: &str = "iam.amazonaws.com/role";
/// Annotation of a namespace: the roles that its pods may have.
const PERMITTED: &str = "iam.amazonaws.com/permitted";

/// The relevant properties of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodObject {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; differs for another pod of the same name.
    pub uid: String,
    /// Name of the node.
    pub node: String,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// Annotated role.
    pub role: Option<String>,
    /// Other annotations.
    pub annotations: Vec<(String, String)>,
    /// `status.podIPs`, the first of which is `status.podIP`; `None` until the pod has a network.
    pub addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    /// `spec.hostNetwork`.
    pub on_node_network: bool,
    /// `status.phase`.
    pub phase: String,
    /// True if it is being deleted: it has a `deletionTimestamp`, and runs until its grace period ends.
    pub terminating: bool,
    /// Leaves out the ballast of a real pod, for very many pods.
    pub bare: bool,
}

impl PodObject {
    /// Returns a running pod.
    #[must_use]
    pub fn running(namespace: &str, name: &str, role: Option<&str>, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid(namespace, name),
            node: crate::node::topology::NODE_NAME.to_owned(),
            service_account: "default".to_owned(),
            role: role.map(ToOwned::to_owned),
            annotations: Vec::new(),
            addresses: Some((v4, v6)),
            on_node_network: false,
            phase: "Running".to_owned(),
            terminating: false,
            bare: false,
        }
    }

    /// Returns a running hostNetwork pod.
    #[must_use]
    pub fn on_node_network(namespace: &str, name: &str, role: Option<&str>) -> Self {
        let (v4, v6) = (crate::node::topology::NODE_V4, crate::node::topology::NODE_V6);
        Self { on_node_network: true, ..Self::running(namespace, name, role, v4, v6) }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self {
            namespace,
            name,
            uid,
            node,
            service_account,
            role,
            annotations,
            addresses,
            on_node_network,
            phase,
            terminating,
            bare,
        } = self;
        let mut notes: Map<String, Value> =
            annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        if let Some(role) = role {
            notes.insert(ROLE.to_owned(), json!(role));
        }
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": notes},
            "spec": {"nodeName": node, "serviceAccountName": service_account, "hostNetwork": on_node_network,
                "containers": []},
            "status": {"phase": phase},
        });
        if let Some((v4, v6)) = addresses {
            object["status"]["podIP"] = json!(v4);
            object["status"]["podIPs"] = json!([{"ip": v4}, {"ip": v6}]);
        }
        if !bare {
            add_ballast(&mut object, name);
        }
        if *terminating {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:00Z");
            object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        }
        object
    }
}

/// Adds the other fields of a real pod.
fn add_ballast(object: &mut Value, name: &str) {
    let time = "2026-01-01T00:00:00Z";
    object["metadata"]["creationTimestamp"] = json!(time);
    object["metadata"]["labels"] = json!({"app": name});
    object["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
        "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}}]);
    object["spec"]["restartPolicy"] = json!("Always");
    object["spec"]["containers"] = json!([{"name": "main", "image": "example/app:1", "resources": {},
        "env": [{"name": "MODE", "value": "production"}]}]);
    object["status"]["hostIP"] = json!(crate::node::topology::NODE_V4);
    object["status"]["startTime"] = json!(time);
    object["status"]["qosClass"] = json!("BestEffort");
    object["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": time}]);
}

/// The relevant properties of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceObject {
    /// Name.
    pub name: String,
    /// Annotated expression for the roles that its pods may have.
    pub permitted: Option<String>,
}

impl NamespaceObject {
    /// Returns a namespace whose pods may have the roles that match `permitted`.
    #[must_use]
    pub fn permitting(name: &str, permitted: &str) -> Self {
        Self { name: name.to_owned(), permitted: Some(permitted.to_owned()) }
    }

    pub(super) fn to_json(&self) -> Value {
        let annotations = self.permitted.as_ref().map_or_else(|| json!({}), |permitted| json!({PERMITTED: permitted}));
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.name,
                "uid": uid("", &self.name),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"kubernetes.io/metadata.name": self.name},
                "annotations": annotations,
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        })
    }
}

/// Derives a UID from the name.
fn uid(namespace: &str, name: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (namespace, name).hash(&mut hasher);
    let bits = hasher.finish();
    format!("00000000-0000-4000-8000-{:012x}", bits & 0xffff_ffff_ffff)
}

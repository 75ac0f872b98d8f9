//! Configuration of exemptions: the pods that keep the node role although hostNetwork pods are enforced.

use super::{ACCOUNTS_MAX, Account, HostNetworkPods, is_name};
use crate::{args::ExemptArgs, attestation::PodUid};
use kiam_common::flags::{self, Problems};
use std::{collections::BTreeSet, path::PathBuf};

/// The ServiceAccounts of `default`: AWS ships their pods for every node, on the node's network and with the node role.
const DEFAULTS: [&str; 4] = [
    "kube-system/aws-node",                 // the VPC CNI
    "kube-system/cloud-controller-manager", // the control plane
    "kube-system/ebs-csi-node-sa",
    "kube-system/efs-csi-node-sa",
];

/// Configuration of exemptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExemptConfig {
    /// ServiceAccounts of exempt pods; empty with `--host-network-pods=ignore`.
    pub(crate) accounts: BTreeSet<Account>,
    /// Name of this node in Kubernetes.
    pub(crate) node: Option<String>,
    /// The agent's own pod.
    pub(crate) own_pod: Option<PodUid>,
    /// Kubeconfig file; `None` uses the ServiceAccount of the agent's own pod.
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl TryFrom<ExemptArgs> for ExemptConfig {
    type Error = Problems;

    fn try_from(args: ExemptArgs) -> Result<Self, Problems> {
        let ExemptArgs { exempt, node_name, pod_uid, kubeconfig } = args;
        let mut problems = Problems::default();
        let accounts = problems.value("--exempt", &exempt.join(","), |_| accounts(&exempt));
        let node = problems.optional("--node-name", node_name.as_deref(), |text| {
            if is_name(text) { Ok(text.to_owned()) } else { Err("not the name of a node") }
        });
        let own_pod = problems
            .optional("--pod-uid", pod_uid.as_deref(), |text| PodUid::parse(text).ok_or("not the UID of a pod"));
        let kubeconfig = problems.optional("--kubeconfig", kubeconfig.as_deref(), flags::path);
        match (accounts, node, own_pod, kubeconfig) {
            (Some(accounts), Some(node), Some(own_pod), Some(kubeconfig)) => {
                Ok(Self { accounts, node, own_pod, kubeconfig })
            }
            _ => Err(problems),
        }
    }
}

impl ExemptConfig {
    /// Removes all exemptions if hostNetwork pods are ignored: then no pod needs one, and the API is not queried.
    pub(super) fn only_under(self, host_network_pods: HostNetworkPods) -> Self {
        match host_network_pods {
            HostNetworkPods::Enforce => self,
            HostNetworkPods::Ignore => Self { accounts: BTreeSet::new(), own_pod: None, ..self },
        }
    }

    /// Returns the warning for the log at start, if there is one.
    pub(super) fn notice(&self, host_network_pods: HostNetworkPods) -> Option<String> {
        let missing = host_network_pods == HostNetworkPods::Enforce && self.own_pod.is_none();
        missing.then(|| {
            "--pod-uid is not given: if this agent runs in a pod, that pod is not exempt; set it to metadata.uid"
                .to_owned()
        })
    }
}

fn accounts(words: &[String]) -> Result<BTreeSet<Account>, String> {
    if words == ["none"] {
        return Ok(BTreeSet::new());
    }
    let mut accounts = BTreeSet::new();
    for word in words {
        let named: &[&str] = if word == "default" { &DEFAULTS } else { &[word] };
        for text in named {
            let account = Account::parse(text).map_err(|problem| {
                format!(
                    "{text:?} is {problem}; write a list of NAMESPACE/SERVICEACCOUNT and default, or none alone to \
                     exempt no pod"
                )
            })?;
            accounts.insert(account);
        }
    }
    if accounts.len() > ACCOUNTS_MAX {
        return Err(format!("more than {ACCOUNTS_MAX} ServiceAccounts"));
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Ok(accounts(&words)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_in_kube_system_only() {
        let found = names(&["default"]).unwrap();
        assert_eq!(found, DEFAULTS);
        assert!(found.iter().all(|name| name.starts_with("kube-system/")));
    }

    #[test]
    fn the_list_is_what_is_exempt() {
        assert_eq!(names(&["none"]).unwrap(), [""; 0]);
        assert_eq!(names(&["a/b", "a/c", "a/b"]).unwrap(), ["a/b", "a/c"]);
        assert_eq!(names(&["a/b", "default"]).unwrap().len(), 1 + DEFAULTS.len());
        let many: Vec<String> = (0..=ACCOUNTS_MAX).map(|last| format!("a/b{last}")).collect();
        assert!(accounts(&many).unwrap_err().contains("more than 16"));
        for bad in [&["none", "a/b"] as &[&str], &["", "a/b"], &["defaults"], &["kube-system/*"], &[""]] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
    }
}

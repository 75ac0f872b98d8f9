//! `--host-network-pods=enforce`, on a node with both versions of control groups whose pods are behind a bridge:
//! hostNetwork pods have their own roles, exempt ones the node's, and all others no role.

use crate::{
    disturbed::{all_served, restart},
    served::{expect_no_credentials, expect_server_credentials},
    stage::{Deployed, KIAM, ROLE, ROLE_ANNOTATION, Stage, TEAM, enough},
};
use anyhow::{Result, ensure};
use kiam_tests::{
    cluster::{
        Cgroups,
        client::{ClientPod, Network, Spec},
        probe::Got,
    },
    eventually::eventually,
    fakes::{canary::NODE_ROLE, sts::ACCOUNT},
    system::SOON,
};
use serde_json::json;
use std::fs;

/// Namespace and ServiceAccount of a pod that AWS ships for every node, and that needs the node's role.
const EXEMPT: (&str, &str) = ("kube-system", "ebs-csi-node-sa");
/// Secret with a kubeconfig, and the mount point of its volume.
const KUBECONFIG: &str = "kiam-agent-kubeconfig";
const KUBECONFIG_AT: &str = "/etc/kiam/kube";
/// A path that only a pod requests.
const MARK: &str = "/latest/meta-data/requested-by-a-pod";
/// Requests [`MARK`] from the IMDS at each of its addresses, whatever the outcome.
const REQUEST: &str = "import sys, urllib.request
for imds in ('169.254.169.254', '[fd00:ec2::254]', '[::ffff:169.254.169.254]'):
    try: print(imds, urllib.request.urlopen('http://' + imds + sys.argv[1], timeout=2).status)
    except OSError as error: print(imds, error)";

/// Returns the reason if this machine does not support such a node.
pub(crate) fn obstacle() -> Option<String> {
    Cgroups::Hybrid.missing()
}

pub(crate) fn rolls_out_behind_a_bridge(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    let mut probe = deployed.veteran.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    probe.end()?;
    deployed.expect_no_leak()
}

/// The server needs the node's role and the node's network: a new one gets the role under enforcement, too.
pub(crate) fn a_new_server_has_the_nodes_role(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    deployed.cluster.canary.forget();
    restart(deployed, "deployment/kiam-server", "server")?;
    let newcomer = deployed.pod("newcomer", Some(ROLE))?;
    let mut probe = newcomer.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    probe.end()?;
    expect_server_credentials(deployed)?;
    newcomer.delete()
}

pub(crate) fn host_network_pods_have_their_own_roles(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    let pods = deployed.crowd(2, Network::Nodes)?;
    for (pod, role) in &pods {
        let mut probe = pod.probe(deployed.cluster.folder())?;
        all_served(&mut probe, role)?;
        probe.end()?;
        for arn in [pod.boto3_identity()?, pod.cli_identity()?] {
            ensure!(arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/kiam-")), "{role}: {arn}");
        }
    }
    ClientPod::delete_all(&pods.into_iter().map(|(pod, _)| pod).collect::<Vec<_>>())
}

pub(crate) fn pod_without_a_role_gets_nothing(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    let spec = Spec { network: Network::Nodes, ..Spec::new(TEAM, "roleless-on-the-node", &[]) };
    let pod = ClientPod::create(&deployed.cluster, &spec)?;
    expect_no_credentials(&pod)?;
    let output = pod.python(&["-c", REQUEST, MARK])?;
    let output = String::from_utf8_lossy(&output.stdout);
    ensure!(output.lines().count() == 3 && !output.contains(" 200"), "{output}");
    let requests = deployed.cluster.canary.requests();
    ensure!(!requests.iter().any(|request| request.path == MARK), "LEAK: at the real IMDS: {requests:?}");
    pod.delete()
}

pub(crate) fn exempt_pod_has_the_nodes_role(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    let exempt = exempt_pod(deployed, "ebs-csi-node")?;
    expect_node_role(deployed, &exempt)?;
    // A ServiceAccount of the same name in another namespace is not exempt.
    let (_, service_account) = EXEMPT;
    deployed.cluster.kubectl.run(&["create", "serviceaccount", "-n", TEAM, service_account])?;
    let annotations = [(ROLE_ANNOTATION, ROLE)];
    let spec = Spec::new(TEAM, "ebs-csi-node", &annotations);
    let namesake = ClientPod::create(&deployed.cluster, &Spec { network: Network::Nodes, service_account, ..spec })?;
    let mut probe = namesake.probe(deployed.cluster.folder())?;
    all_served(&mut probe, ROLE)?;
    probe.end()?;
    exempt.delete()?;
    namesake.delete()
}

/// Makes a pod with the exempt ServiceAccount, which is created if it is missing.
fn exempt_pod(deployed: &Deployed, name: &str) -> Result<ClientPod> {
    let (namespace, service_account) = EXEMPT;
    deployed.cluster.kubectl.feed(
        &["apply", "-f", "-"],
        &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
            "namespace": namespace, "name": service_account,
        }}),
    )?;
    let spec = Spec { network: Network::Nodes, service_account, ..Spec::new(namespace, name, &[]) };
    ClientPod::create(&deployed.cluster, &spec)
}

fn expect_node_role(deployed: &Deployed, pod: &ClientPod) -> Result<()> {
    eventually("it has the node's role", SOON, || {
        let mut probe = pod.probe(deployed.cluster.folder())?;
        let attempts = enough(&mut probe)?;
        probe.end()?;
        let is_the_nodes = |got: &Got| matches!(got, Got::Credentials { role, .. } if role == NODE_ROLE);
        ensure!(attempts.iter().all(|attempt| is_the_nodes(&attempt.got)), "{attempts:?}");
        Ok(())
    })
}

/// For clusters whose ServiceAccounts cannot reach the API server: a kubeconfig contains its address and a token.
pub(crate) fn agent_with_a_kubeconfig_finds_exempt_pods(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    write_kubeconfig(deployed)?;
    give_kubeconfig(deployed)?;
    deployed.rolled_out("daemonset/kiam-agent")?;
    // No earlier agent has seen this pod.
    let exempt = exempt_pod(deployed, "ebs-csi-node-later")?;
    expect_node_role(deployed, &exempt)?;
    exempt.delete()
}

fn write_kubeconfig(deployed: &Deployed) -> Result<()> {
    let kubectl = &deployed.cluster.kubectl;
    let token = kubectl.run(&["create", "token", "-n", KIAM, "kiam-agent"])?;
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": {
            "server": "https://127.0.0.1:443", "certificate-authority": format!("{KUBECONFIG_AT}/ca.crt"),
        }}],
        "users": [{ "name": "u", "user": { "token": token.trim() } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    let authority = fs::read_to_string(deployed.cluster.folder().join("pki/ca.crt"))?;
    kubectl.feed(
        &["create", "-f", "-"],
        &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "namespace": KIAM, "name": KUBECONFIG },
            "stringData": { "kubeconfig": kubeconfig.to_string(), "ca.crt": authority },
        }),
    )?;
    Ok(())
}

/// Mounts the kubeconfig instead of the ServiceAccount's token.
fn give_kubeconfig(deployed: &Deployed) -> Result<()> {
    let at = |path: &str| format!("/spec/template/spec/{path}");
    let patch = json!([
        { "op": "replace", "path": at("automountServiceAccountToken"), "value": false },
        { "op": "add", "path": at("volumes/-"),
          "value": { "name": KUBECONFIG, "secret": { "secretName": KUBECONFIG, "defaultMode": 0o400 } } },
        { "op": "add", "path": at("containers/0/volumeMounts/-"),
          "value": { "name": KUBECONFIG, "mountPath": KUBECONFIG_AT, "readOnly": true } },
        { "op": "add", "path": at("containers/0/args/-"),
          "value": format!("--kubeconfig={KUBECONFIG_AT}/kubeconfig") },
    ]);
    let patch = patch.to_string();
    deployed.cluster.kubectl.run(&["patch", "-n", KIAM, "daemonset/kiam-agent", "--type=json", "-p", &patch])?;
    Ok(())
}

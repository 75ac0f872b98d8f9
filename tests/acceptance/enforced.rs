//! `--host-network-pods=enforce`, on a node with both versions of control groups whose pods are behind a bridge: pods on
//! the node's network have roles of their own, exempt ones the node's, and all others nothing.

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

/// A pod that AWS ships for every node, and that needs the node's role.
const EXEMPT: (&str, &str) = ("kube-system", "ebs-csi-node-sa");
/// The secret with a kubeconfig, and its volume.
const KUBECONFIG: &str = "kiam-agent-kubeconfig";
const KUBECONFIG_AT: &str = "/etc/kiam/kube";
/// What only a pod asks for.
const MARK: &str = "/latest/meta-data/asked-by-a-pod";
/// Asks M for [`MARK`] at each of its addresses, whatever comes of it.
const ASK: &str = "import sys, urllib.request
for m in ('169.254.169.254', '[fd00:ec2::254]', '[::ffff:169.254.169.254]'):
    try: print(m, urllib.request.urlopen('http://' + m + sys.argv[1], timeout=2).status)
    except OSError as error: print(m, error)";

/// Why this machine cannot have such a node, if it cannot.
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

/// The server lives on the node's role, and on the node's network: a new one gets it under enforcement, too.
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
    let said = pod.python(&["-c", ASK, MARK])?;
    let said = String::from_utf8_lossy(&said.stdout);
    ensure!(said.lines().count() == 3 && !said.contains(" 200"), "{said}");
    let requests = deployed.cluster.canary.requests();
    ensure!(!requests.iter().any(|request| request.path == MARK), "LEAK: at the real IMDS: {requests:?}");
    pod.delete()
}

pub(crate) fn exempt_pod_has_the_nodes_role(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    let exempt = exempt_pod(deployed, "ebs-csi-node")?;
    expect_node_role(deployed, &exempt)?;
    // The same name elsewhere is nobody.
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

/// A pod with the ServiceAccount, which is made when it is not there.
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

/// As where pods' ServiceAccounts do not lead to the API server: its address and a token stand in a file of their own.
pub(crate) fn agent_with_a_kubeconfig_finds_exempt_pods(stage: &mut Stage) -> Result<()> {
    let deployed = stage.enforced()?;
    write_kubeconfig(deployed)?;
    give_kubeconfig(deployed)?;
    deployed.rolled_out("daemonset/kiam-agent")?;
    // Nobody has told an earlier agent of it.
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

/// In the place of the ServiceAccount's token.
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

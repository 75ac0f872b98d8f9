//! Pods that keep the node's role although hostNetwork pods have their own. The Kubernetes API identifies them, by
//! namespace and ServiceAccount. A kiam server runs only where an agent must hand over.

mod trees;

use super::{IMDS, UIDS, expect_node_role, expect_nothing_at_the_canary, forget, from_pod, host_network_pod};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    eventually::{eventually, throughout},
    fakes::{canary::NODE_ROLE, kube_api::PodObject},
    node::{
        cgroups::{Driver, Kubepods, PodCgroup, Qos},
        process,
        topology::NODE_NAME,
    },
    system::{Agent, SOON, System, datapath_scenario, scenario},
};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

/// UID of a fourth pod.
const FOURTH: &str = "44444444-4444-4444-4444-444444444444";
/// UID of a pod that only fills the tree: without any pod the agent assumes that it looks in the wrong place.
const OTHER: &str = "55555555-5555-5555-5555-555555555555";
/// Time in which the agent reacts to an event. Its self-check, which would also correct the map, runs every ten
/// seconds; each step is repeated several times, so that none passes by chance.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Returns the Kubernetes object of a hostNetwork pod.
fn object(namespace: &str, name: &str, account: &str, uid: &str) -> PodObject {
    let pod = PodObject::on_node_network(namespace, name, None);
    PodObject { uid: uid.to_owned(), service_account: account.to_owned(), ..pod }
}

fn aws_node(uid: &str) -> PodObject {
    object("kube-system", "aws-node-x7k2p", "aws-node", uid)
}

fn flags(system: &System, kubepods: &Kubepods) -> Result<Vec<String>> {
    Ok(vec![
        "--host-network-pods=enforce".to_owned(),
        format!("--kubepods-cgroup={}", kubepods.path().display()),
        "--exempt=default".to_owned(),
        format!("--node-name={NODE_NAME}"),
        format!("--kubeconfig={}", system.write_kubeconfig()?.display()),
    ])
}

fn start(system: &mut System, kubepods: &Kubepods) -> Result<()> {
    system.agent_flags = flags(system, kubepods)?;
    system.spawn_agent()?.wait_armed()
}

/// Asserts that a pod has the node's role by every notation of the IMDS address, and forgets its packets.
fn expect_exempt(system: &System, pod: &PodCgroup) -> Result<()> {
    for imds in IMDS {
        expect_node_role(&from_pod(system, pod, &system.topology.node, &["tcp", imds])?)?;
    }
    forget(system)
}

/// Asserts that a pod is redirected to the agent by every notation of the IMDS address.
fn expect_not_exempt(system: &System, pod: &PodCgroup) -> Result<()> {
    for imds in IMDS {
        let call = from_pod(system, pod, &system.topology.node, &["tcp", imds])?;
        expect_nothing_at_the_canary(system)?;
        ensure!(call.error().is_none() && !call.answer().contains(NODE_ROLE), "{imds}: {call:?}");
    }
    Ok(())
}

/// Returns whether the kernel programs treat a pod as exempt.
fn is_exempt(system: &System, pod: u64) -> Result<bool> {
    let map = system.bpffs().join("kiam/v1/kiam_exempt");
    let dump = process::run(Command::new("bpftool").args(["--json", "map", "dump", "pinned"]).arg(map))?;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&dump)?;
    Ok(entries.iter().any(|entry| entry["formatted"]["key"].as_u64() == Some(pod)))
}

fn wait_exempt(system: &System, pod: u64, wanted: bool, limit: Duration) -> Result<()> {
    eventually(&format!("exempt: {wanted}"), limit, || {
        ensure!(is_exempt(system, pod)? == wanted, "{pod}");
        Ok(())
    })
}

/// Returns the line of `kiam-agent health` about exemptions.
fn exemptions_line(agent: &Agent) -> Result<String> {
    let health = String::from_utf8(agent.health()?.stdout)?;
    Ok(health.lines().find(|line| line.contains(" exemptions")).unwrap_or_default().to_owned())
}

/// The named accounts keep the node's role; pods of similar accounts do not.
#[test]
fn only_named_accounts_keep_the_nodes_role() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Systemd)?;
        let [exempt, elsewhere, longer] = UIDS;
        let objects = [
            aws_node(exempt),
            object("team-a", "aws-node-x7k2p", "aws-node", elsewhere),
            object("kube-system", "aws-node", "aws-node-2", longer),
            PodObject { node: "another-node".to_owned(), ..aws_node(FOURTH) },
        ];
        // The last one has a cgroup here that was named after it.
        let mut pods = Vec::new();
        for (index, (object, qos)) in
            objects.iter().zip([Qos::Burstable, Qos::Burstable, Qos::BestEffort, Qos::Guaranteed]).enumerate()
        {
            let object = PodObject { name: format!("{}-{index}", object.name), ..object.clone() };
            pods.push(host_network_pod(system, &kubepods, &object.uid, qos)?);
            system.kube.put_pod(&object);
        }
        start(system, &kubepods)?;
        expect_exempt(system, &pods[0])?;
        pods[1..].iter().try_for_each(|pod| expect_not_exempt(system, pod))
    });
}

/// An exemption begins with the pod, whether the agent sees the cgroup or the object first, and ends with it.
#[test]
fn exemption_lasts_as_long_as_the_pod() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _other = kubepods.add_pod(&system.topology.node, OTHER, Qos::Guaranteed)?;
        start(system, &kubepods)?;
        for uid in UIDS.iter().chain(&[FOURTH]) {
            // First the cgroup, then the pod object.
            let pod = kubepods.add_pod(&system.topology.node, uid, Qos::Burstable)?;
            expect_not_exempt(system, &pod)?;
            system.kube.put_pod(&aws_node(uid));
            wait_exempt(system, pod.id()?, true, AT_ONCE)?;
            expect_exempt(system, &pod)?;

            // The deletion of the object, while processes still run.
            system.kube.delete_pod("kube-system", "aws-node-x7k2p")?;
            wait_exempt(system, pod.id()?, false, AT_ONCE)?;
            expect_not_exempt(system, &pod)?;
        }
        for uid in ["a", "b", "c", "d"].map(|last| UIDS[0].replace('1', last)) {
            // First the pod object, then the cgroup.
            system.kube.put_pod(&aws_node(&uid));
            std::thread::sleep(Duration::from_millis(300));
            let pod = kubepods.add_pod(&system.topology.node, &uid, Qos::BestEffort)?;
            wait_exempt(system, pod.id()?, true, AT_ONCE)?;
            expect_exempt(system, &pod)?;

            // A pod that has ended is not exempt, even if its cgroup is still there.
            system.kube.put_pod(&PodObject { phase: "Failed".to_owned(), ..aws_node(&uid) });
            wait_exempt(system, pod.id()?, false, AT_ONCE)?;
            expect_not_exempt(system, &pod)?;
            system.kube.delete_pod("kube-system", "aws-node-x7k2p")?;
        }
        Ok(())
    });
}

/// The exemption of a pod without a cgroup ends, although Kubernetes still has the pod's object. No event announces the
/// end of a cgroup, and its id is not reused.
#[test]
fn exemption_ends_with_the_cgroup() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _other = kubepods.add_pod(&system.topology.node, OTHER, Qos::Guaranteed)?;
        let pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        system.kube.put_pod(&aws_node(UIDS[0]));
        start(system, &kubepods)?;
        let id = pod.id()?;
        expect_exempt(system, &pod)?;
        end(pod)?;
        wait_exempt(system, id, false, SOON)?;
        // The same pod in a new cgroup, as after a reset of the kubelet.
        let pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        wait_exempt(system, pod.id()?, true, AT_ONCE)?;
        expect_exempt(system, &pod)
    });
}

/// Ends a pod and removes its cgroups.
fn end(pod: PodCgroup) -> Result<()> {
    let folders = [pod.container().to_owned(), pod.path().to_owned()];
    drop(pod);
    eventually("its cgroups are gone", SOON, || {
        for folder in folders.iter().filter(|folder| folder.exists()) {
            fs::remove_dir(folder)?;
        }
        Ok(())
    })
}

#[test]
fn first_boot_needs_the_kubernetes_api_only() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        system.kube.put_pod(&aws_node(UIDS[0]));
        system.kube.stop();
        system.agent_flags = flags(system, &kubepods)?;
        system.spawn_agent()?;
        let agent = system.agent.as_ref().context("an agent")?;
        eventually("it reports what is missing", SOON, || {
            let line = exemptions_line(agent)?;
            ensure!(line.starts_with("FAIL  exemptions: ") && line.contains("kube-system/aws-node"), "{line}");
            ensure!(line.contains("Connection refused"), "without the cause: {line}");
            Ok(())
        })?;
        expect_not_exempt(system, &pod)?;
        system.kube.listen(&system.topology.node)?;
        system.agent()?.wait_armed()?;
        expect_exempt(system, &pod)
    });
}

/// After a reboot the list on disk is used until the Kubernetes API is back.
#[test]
fn list_on_disk_counts_until_the_api_is_back() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        system.kube.put_pod(&aws_node(UIDS[0]));
        start(system, &kubepods)?;
        expect_exempt(system, &pod)?;
        let file = system.state_dir().join("exempt.json");
        ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read {}", file.display());

        // After the reboot the kernel has lost everything, and the kubelet makes the pods' cgroups again.
        system.kube.stop();
        system.agent()?.kill_both()?;
        forget_all(system)?;
        drop(pod);
        kubepods.remove()?;
        kubepods.make()?;
        let pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        let other = kubepods.add_pod(&system.topology.node, UIDS[1], Qos::Burstable)?;
        ensure!(!system.bpffs().join("kiam").exists(), "control: a pin survived the reboot");
        start(system, &kubepods)?;
        expect_exempt(system, &pod)?;
        expect_not_exempt(system, &other)?;

        // The pod was replaced in the meantime.
        system.kube.delete_pod("kube-system", "aws-node-x7k2p")?;
        system.kube.put_pod(&aws_node(UIDS[1]));
        system.kube.listen(&system.topology.node)?;
        wait_exempt(system, pod.id()?, false, SOON)?;
        wait_exempt(system, other.id()?, true, AT_ONCE)?;
        eventually("the list on disk is updated", AT_ONCE, || {
            let text = fs::read_to_string(&file)?;
            ensure!(text.contains(UIDS[1]) && !text.contains(UIDS[0]), "{text}");
            Ok(())
        })
    });
}

/// Removes what agents have left in the kernel, but nothing on disk.
fn forget_all(system: &System) -> Result<()> {
    let kept = system.folder().join("kept");
    fs::rename(system.state_dir(), &kept)?;
    system.clean_up()?;
    Ok(fs::rename(&kept, system.state_dir())?)
}

/// A list on disk that was not written by an agent is named and ignored.
#[test]
fn foreign_list_on_disk_is_named_and_ignored() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        fs::create_dir(system.state_dir())?;
        let file = system.state_dir().join("exempt.json");
        let forged = format!(r#"{{"version": 1, "node": "{NODE_NAME}", "pods": {{"*/*": ["{}"]}}}}"#, UIDS[0]);
        fs::write(&file, forged)?;
        start(system, &kubepods)?;
        let log = system.agent()?.daemon.log();
        let line = log.lines().find(|line| line.contains("is ignored")).context("it is not named")?;
        ensure!(line.contains("WARN") && line.contains(&*file.to_string_lossy()), "{line}");
        expect_not_exempt(system, &pod)?;
        // The next update from the API replaces the list.
        system.kube.put_pod(&aws_node(UIDS[0]));
        wait_exempt(system, pod.id()?, true, AT_ONCE)?;
        ensure!(fs::read_to_string(&file)?.contains("kube-system/aws-node"), "it is not replaced");
        system.agent()?.kill_both()?;
        system.clean_up()?;
        ensure!(!file.exists(), "cleanup left it");
        Ok(())
    });
}

/// An agent without a list of exempt pods leaves the node to the agent that serves, so that missing rights of the
/// agents cannot break the CNI of a node.
#[test]
fn agent_without_a_list_does_not_take_over() {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        system.kube.put_pod(&aws_node(UIDS[0]));
        system.start()?;
        system.kube.stop();
        system.agent_flags = flags(system, &kubepods)?;
        let mut new = system.spawn_successor(&[])?;
        eventually("it reports what it waits for", SOON, || {
            let health = String::from_utf8(new.health()?.stdout)?;
            ensure!(health.contains("FAIL  owner: another agent serves this node"), "{health}");
            ensure!(health.contains("Connection refused"), "{health}");
            Ok(())
        })?;
        new.daemon.wait_log("connected to a server")?;
        throughout("the other one serves", Duration::from_secs(2), || {
            ensure!(!new.health()?.status.success(), "it is ready");
            expect_exempt(system, &pod)
        })?;
        system.kube.listen(&system.topology.node)?;
        new.wait_ready()?;
        system.agent.replace(new).context("the old agent")?.daemon.wait_log("standing by")?;
        expect_exempt(system, &pod)
    });
}

/// The agents' own pods are exempt, the old and the new one of an upgrade.
#[test]
fn old_and_new_agent_pods_are_exempt() {
    scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let [old_pod, new_pod, other] =
            [UIDS[0], UIDS[1], UIDS[2]].map(|uid| host_network_pod(system, &kubepods, uid, Qos::Burstable));
        let (old_pod, new_pod, other) = (old_pod?, new_pod?, other?);
        // The Kubernetes API is not needed for this.
        system.kube.stop();
        system.agent_flags =
            vec!["--host-network-pods=enforce".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
        let own = |uid: &str| format!("--pod-uid={uid}");
        let mut old = system.spawn_successor(&[own(UIDS[0])])?;
        old.wait_armed()?;
        expect_exempt(system, &old_pod)?;
        expect_not_exempt(system, &new_pod)?;

        // The new agent waits for a server, and does not own the datapath.
        let mut new = system.spawn_successor(&[own(UIDS[1])])?;
        crate::lifecycle::upgrade::expect_waiting(&new)?;
        [&old_pod, &new_pod].into_iter().try_for_each(|pod| expect_exempt(system, pod))?;
        system.kube.listen(&system.topology.node)?;
        system.start_server()?;
        new.wait_ready()?;
        old.daemon.wait_log("standing by")?;
        [&old_pod, &new_pod].into_iter().try_for_each(|pod| expect_exempt(system, pod))?;
        expect_not_exempt(system, &other)?;

        ensure!(old.stop()?.success(), "the old agent's exit code");
        let id = old_pod.id()?;
        ensure!(is_exempt(system, id)?, "its pod still exists");
        end(old_pod)?;
        wait_exempt(system, id, false, SOON)?;
        expect_exempt(system, &new_pod)?;
        system.agent = Some(new);
        Ok(())
    });
}

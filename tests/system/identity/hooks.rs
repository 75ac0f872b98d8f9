//! The cgroup hooks: processes of pods on the node's own network, which no TC program handles, and all pods if the
//! hooks are the only redirect. `closed::bypass` covers packets that the hooks do not handle.

mod cgroup_only;
mod elsewhere;
mod exempt;
mod life;
mod roles;

use anyhow::{Context as _, Result, ensure};
use aya::util::KernelVersion;
use kiam_tests::{
    eventually::eventually,
    fakes::canary::NODE_ROLE,
    leaks,
    node::{
        bystander::Bystander,
        cgroups::{Driver, Kubepods, PodCgroup, Qos},
        netns::Netns,
        process,
        topology::Sender,
    },
    system::{SOON, System, datapath_scenario},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// Notations of the IMDS address.
const IMDS: [&str; 3] = ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"];
/// UIDs of three pods.
const UIDS: [&str; 3] = [
    "11111111-1111-1111-1111-111111111111",
    "22222222-2222-2222-2222-222222222222",
    "33333333-3333-3333-3333-333333333333",
];
/// Result of a call.
#[derive(Debug)]
struct Call(Value);

impl Call {
    fn error(&self) -> Option<&str> {
        self.0["error"].as_str()
    }

    fn answer(&self) -> &str {
        self.0["answer"].as_str().unwrap_or_default()
    }

    /// Returns the peer's address and port, as the process sees them.
    fn peer(&self) -> Option<(&str, u64)> {
        Some((self.0["peer"][0].as_str()?, self.0["peer"][1].as_u64()?))
    }
}

/// Runs `call.py` as a process of the node itself.
fn from_node(system: &System, words: &[&str]) -> Result<Call> {
    run(system.topology.node.command(system.python.interpreter()), words)
}

/// Runs `call.py` as a process of a pod, on the network of `netns`.
fn from_pod(system: &System, pod: &PodCgroup, netns: &Netns, words: &[&str]) -> Result<Call> {
    run(pod.command(netns, system.python.interpreter()), words)
}

fn run(mut command: Command, words: &[&str]) -> Result<Call> {
    let output = process::run(command.arg(script("hooks/call.py")).args(words))?;
    Ok(Call(serde_json::from_str(&output).with_context(|| format!("{output:?}"))?))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("system/identity").join(name)
}

/// Makes a pod, and shows that it reaches the canary while nothing of ours is in the way.
fn host_network_pod(system: &System, kubepods: &Kubepods, uid: &str, qos: Qos) -> Result<PodCgroup> {
    let pod = kubepods.add_pod(&system.topology.node, uid, qos)?;
    for imds in IMDS {
        expect_node_role(&from_pod(system, &pod, &system.topology.node, &["tcp", imds])?)?;
    }
    forget(system)?;
    Ok(pod)
}

fn expect_node_role(call: &Call) -> Result<()> {
    ensure!(call.answer().ends_with(NODE_ROLE), "not answered by the canary: {call:?}");
    Ok(())
}

/// Asserts that a call fails with EPERM, and that none of its packets is at the canary.
fn expect_refused(system: &System, call: &Call) -> Result<()> {
    expect_nothing_at_the_canary(system)?;
    ensure!(call.error() == Some("EPERM"), "{call:?}");
    Ok(())
}

/// Starts an agent that enforces roles for hostNetwork pods.
fn enforce(system: &mut System, kubepods: &Kubepods) -> Result<()> {
    system.agent_flags =
        vec!["--host-network-pods=enforce".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
    system.spawn_agent()?.wait_armed()
}

/// Returns a count of the hooks or of the guard.
fn counted(system: &mut System, reason: &str) -> Result<u64> {
    let metrics = system.agent.as_ref().context("no agent")?.admin(&system.topology.node, "/metrics")?;
    let line = format!("kiam_agent_packets_total{{interface=\"\",reason=\"{reason}\"}} ");
    let value = metrics.text().lines().find_map(|found| found.strip_prefix(&line)).unwrap_or("0");
    Ok(value.parse()?)
}

/// Waits for a count: the agent reads the counters every few seconds.
fn expect_counted(system: &mut System, reason: &str, at_least: u64) -> Result<()> {
    eventually(&format!("{at_least} counted as {reason}"), SOON, || {
        let counted = counted(system, reason)?;
        ensure!(counted >= at_least, "{counted}");
        Ok(())
    })
}

/// Asserts that only the harness's own markers are at the canary.
fn expect_nothing_at_the_canary(system: &System) -> Result<()> {
    system.canary.settle(&system.topology.node)?;
    for sender in [Sender::Pod, Sender::Node, Sender::Other] {
        let packets = system.canary.packets_of(sender);
        ensure!(packets.is_empty(), "{}: of {sender:?}: {packets:?}", leaks::CANARY);
    }
    Ok(())
}

/// Forgets packets that were sent on purpose, once their connections are closed.
fn forget(system: &System) -> Result<()> {
    eventually("the connections to the canary are closed", SOON, || {
        let open = process::run(system.topology.node.command("ss").args(["-Htan", "dport", "=", ":80"]))?;
        let open: Vec<&str> = open.lines().filter(|line| !line.starts_with("TIME-WAIT")).collect();
        ensure!(open.is_empty(), "{open:?}");
        Ok(())
    })?;
    system.canary.settle(&system.topology.node)?;
    system.canary.forget();
    Ok(())
}

fn sent_to_the_agent(driver: Driver) {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(driver)?;
        let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort];
        let pods: Vec<PodCgroup> = UIDS
            .iter()
            .zip(classes)
            .map(|(uid, qos)| host_network_pod(system, &kubepods, uid, qos))
            .collect::<Result<_>>()?;
        enforce(system, &kubepods)?;
        for pod in &pods {
            for imds in IMDS {
                let call = from_pod(system, pod, &system.topology.node, &["tcp", imds])?;
                expect_nothing_at_the_canary(system)?;
                ensure!(call.peer() == Some((imds, 80)) && !call.answer().contains(NODE_ROLE), "{imds}: {call:?}");
            }
        }
        expect_counted(system, "connect", 9)?;
        // The node's own processes are not affected.
        for imds in IMDS {
            let call = from_node(system, &["tcp", imds])?;
            expect_node_role(&call)?;
            ensure!(call.peer() == Some((imds, 80)), "{call:?}");
        }
        Ok(())
    });
}

#[test]
fn host_network_pods_are_sent_to_the_agent() {
    sent_to_the_agent(Driver::Cgroupfs);
}

#[test]
fn systemd_driver_pods_are_sent_to_the_agent() {
    sent_to_the_agent(Driver::Systemd);
}

#[test]
fn other_ports_and_protocols_are_refused() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        enforce(system, &kubepods)?;
        let node = &system.topology.node;
        for imds in IMDS {
            for words in [["tcp", imds, "--port=8080"], ["udp", imds, "--port=80"], ["udp", imds, "--port=53"]] {
                expect_refused(system, &from_pod(system, &pod, node, &words)?)?;
            }
        }
        expect_counted(system, "connect-refused", 9)
    });
}

/// Without an agent no pod is connected, and no other process receives a byte.
#[test]
fn no_agent_means_no_connection() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        enforce(system, &kubepods)?;
        let all = listening_on_loopback(&system.topology.node)?;
        system.agent()?.kill_both()?;
        let left = listening_on_loopback(&system.topology.node)?;
        let agents: Vec<u16> = all.difference(&left).copied().collect();
        ensure!(agents.len() == 3, "the agent listened on {agents:?}, expected one port per family and the admin port");
        let others: Vec<Bystander> =
            agents.iter().map(|&port| Bystander::start(&system.topology.node, port)).collect::<Result<_>>()?;
        for imds in IMDS {
            expect_refused(system, &from_pod(system, &pod, &system.topology.node, &["tcp", imds])?)?;
        }
        for other in &others {
            other.expect_nothing()?;
        }
        expect_node_role(&from_node(system, &["tcp", IMDS[0]])?)
    });
}

/// Returns the ports with a listener at a loopback address.
fn listening_on_loopback(node: &Netns) -> Result<BTreeSet<u16>> {
    let sockets = process::run(node.command("ss").arg("-Hltn"))?;
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
    let ports = local.filter_map(|local| local.strip_prefix("127.0.0.1:").or_else(|| local.strip_prefix("[::1]:")));
    ports.map(|port| Ok(port.parse()?)).collect()
}

#[test]
fn an_exempt_pod_keeps_the_nodes_role() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let exempt = host_network_pod(system, &kubepods, UIDS[0], Qos::Guaranteed)?;
        let also = host_network_pod(system, &kubepods, UIDS[1], Qos::BestEffort)?;
        let other = host_network_pod(system, &kubepods, UIDS[2], Qos::BestEffort)?;
        enforce(system, &kubepods)?;
        let node = &system.topology.node;
        for pod in [&exempt, &also] {
            update_exempt(system, "update", pod)?;
            for imds in IMDS {
                expect_node_role(&from_pod(system, pod, node, &["tcp", imds])?)?;
            }
            // As in docs/agent.md: since this version the hook can identify the pod.
            let identifies = KernelVersion::current()? >= KernelVersion::new(6, 1, 0);
            let call = from_pod(system, pod, node, &["option", "263", "20"])?;
            ensure!(call.error().is_none() == identifies, "PACKET_QDISC_BYPASS: {call:?}");
        }
        forget(system)?;
        update_exempt(system, "delete", &exempt)?;
        for pod in [&exempt, &other] {
            let call = from_pod(system, pod, node, &["tcp", IMDS[0]])?;
            expect_nothing_at_the_canary(system)?;
            ensure!(!call.answer().contains(NODE_ROLE), "{call:?}");
        }
        Ok(())
    });
}

/// Adds a pod to the map of exempt pods as if another agent had done it, which this agent leaves alone; or removes it.
fn update_exempt(system: &System, what: &str, pod: &PodCgroup) -> Result<()> {
    let map = system.bpffs().join("kiam/v1/kiam_exempt");
    let mut command = Command::new("bpftool");
    command.args(["map", what, "pinned"]).arg(map).arg("key");
    command.args(pod.id()?.to_ne_bytes().map(|byte| byte.to_string()));
    if what == "update" {
        command.args(["value", "2"]);
    }
    process::run(&mut command).map(drop)
}

#[test]
fn reconnected_socket_names_its_new_peer() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        enforce(system, &kubepods)?;
        let _server = Bystander::start(&system.topology.node, 8080)?;
        for (imds, other) in [(IMDS[0], "127.0.0.1"), (IMDS[1], "::1"), (IMDS[2], "::ffff:127.0.0.1")] {
            let call = from_pod(system, &pod, &system.topology.node, &["again", imds, other, "8080"])?;
            ensure!(call.peer() == Some((other, 8080)), "{call:?}");
        }
        Ok(())
    });
}

#[test]
fn packets_cannot_be_hidden_from_the_guard() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        let own = system.topology.add_pod(1)?;
        enforce(system, &kubepods)?;
        let node = &system.topology.node;
        /// Level and name of an option; the last is a harmless one, longer than a page.
        const OPTIONS: [&[&str]; 4] = [
            &["option", "263", "20"],                  // PACKET_QDISC_BYPASS
            &["option", "283", "4"],                   // XDP_UMEM_REG, which a packet socket does not have
            &["option", "263", "8"],                   // PACKET_AUXDATA
            &["option", "263", "8", "--length=70000"], // the same, longer than any page
        ];
        for (option, expected) in OPTIONS.into_iter().zip([Some("EPERM"), Some("EPERM"), None, None]) {
            let call = from_pod(system, &pod, node, option)?;
            ensure!(call.error() == expected, "a hostNetwork pod, {option:?}: {call:?}");
            let others = if option[1] == "283" { Some("ENOPROTOOPT") } else { None };
            // As in docs/agent.md: since this version the hook can identify the network namespace.
            let identifies = KernelVersion::current()? >= KernelVersion::new(5, 15, 0);
            let call = from_pod(system, &pod, &own, option)?;
            ensure!(
                call.error() == if identifies { others } else { expected },
                "a pod with its own, {option:?}: {call:?}"
            );
            let call = from_node(system, option)?;
            ensure!(call.error() == others, "the node, {option:?}: {call:?}");
        }
        Ok(())
    });
}

/// docs/agent.md describes such calls. Once the kernel calls the hook for them, the page can drop the passage.
#[cfg(target_arch = "x86_64")]
#[test]
fn other_word_size_system_calls_are_not_covered() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let pod = host_network_pod(system, &kubepods, UIDS[0], Qos::Burstable)?;
        enforce(system, &kubepods)?;
        let call = from_pod(system, &pod, &system.topology.node, &["option32", "263", "20"])?;
        ensure!(call.answer() == "1", "it is refused now: {call:?}");
        Ok(())
    });
}

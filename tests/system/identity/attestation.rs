//! Whose role a pod is given where the kernel tells the cgroup that a connection was opened in. The clients are in
//! control groups as a kubelet makes them, and each test shows that the same client is served once it is where it
//! belongs.

mod flood;
mod strangers;

use crate::support::{credentials, expect_identity, expect_role};
use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    clients::{Answer, BOTH, IMDS4, Pod, ROLES},
    eventually::{eventually, throughout},
    fakes::kube_api::PodObject,
    leaks,
    node::{
        cgroups::{Driver, Kubepods, PodCgroup, Qos},
        process,
        topology::PodNetwork,
    },
    system::{SOON, System, scenario},
};
use serde_json::Value;
use std::{net::IpAddr, path::Path, process::Command, time::Duration};

/// How long an answer is watched that must not change: three of the server's waits for a pod that is not known.
const WATCHED: Duration = Duration::from_secs(3);
/// A bridge of the node.
const BRIDGE: &str = "cni0";
/// The interface that the agent sends its probes by.
const PROBE: &str = "kiam-probe0";
/// The roles of the first two pods.
const READER: &str = "reader";
const WRITER: &str = "writer";

/// A pod with a network and a control group.
struct Attested {
    network: PodNetwork,
    cgroup: PodCgroup,
}

impl Attested {
    /// Its clients are in its own container.
    fn new(system: &System, kubepods: &Kubepods, uid: &str, qos: Qos, mut network: PodNetwork) -> Result<Self> {
        let cgroup = kubepods.add_pod(&system.topology.node, uid, qos)?;
        network.live_in(cgroup.container());
        Ok(Self { network, cgroup })
    }

    /// Behind a routed veth, and told to Kubernetes with this role.
    fn routed(system: &System, kubepods: &Kubepods, number: u8, role: &str, qos: Qos) -> Result<Self> {
        let network = system.topology.add_pod(number)?;
        Self::announced(system, kubepods, network, number, role, qos)
    }

    /// Behind a port of the bridge.
    fn bridged(system: &System, kubepods: &Kubepods, number: u8, role: &str) -> Result<Self> {
        let network = system.topology.add_pod_on(number, BRIDGE)?;
        Self::announced(system, kubepods, network, number, role, Qos::BestEffort)
    }

    fn announced(
        system: &System,
        kubepods: &Kubepods,
        network: PodNetwork,
        number: u8,
        role: &str,
        qos: Qos,
    ) -> Result<Self> {
        let name = format!("pod-{number}");
        system.announce(&network, &name, Some(role));
        let uid = PodObject::running("open", &name, None, network.v4, network.v6).uid;
        Self::new(system, kubepods, &uid, qos, network)
    }

    /// Its clients are in this group from now on.
    fn live_in(&mut self, cgroup: &Path) {
        self.network.live_in(cgroup);
    }

    /// Its clients are in its own container again.
    fn live_at_home(&mut self) {
        self.network.live_in(self.cgroup.container());
    }
}

/// The agent goes by this tree.
fn attest(system: &mut System, kubepods: &Kubepods, mode: &str) {
    system.agent_flags.retain(|flag| !flag.starts_with("--attestation=") && !flag.starts_with("--kubepods-cgroup="));
    system.agent_flags.push(format!("--attestation={mode}"));
    system.agent_flags.push(format!("--kubepods-cgroup={}", kubepods.path().display()));
}

/// A reader and a writer behind routed veths, served, with the agent in the mode that nobody has to choose.
fn two_served(system: &mut System, kubepods: &Kubepods) -> Result<[Attested; 2]> {
    attest(system, kubepods, "prefer");
    let reader = Attested::routed(system, kubepods, 1, READER, Qos::Burstable)?;
    let writer = Attested::routed(system, kubepods, 2, WRITER, Qos::Guaranteed)?;
    system.start()?;
    expect_served(system, &reader, READER)?;
    expect_served(system, &writer, WRITER)?;
    Ok([reader, writer])
}

fn expect_served(system: &System, pod: &Attested, role: &str) -> Result<()> {
    for imds in BOTH {
        system.wait_for_role(&pod.network, imds, role)?;
        expect_identity(system, &pod.network, imds, role)?;
    }
    expect_role(&pod.network, role)
}

/// Asserts that a client is neither told nor given any of the roles of these tests, by this status and for this reason.
fn expect_refused(system: &mut System, pod: &PodNetwork, status: u16, reason: &str) -> Result<()> {
    for imds in BOTH {
        let before = refusals(system, reason)?;
        let list = as_often_as_told(|| Pod::new(pod).get(imds, ROLES))?;
        ensure!(![READER, WRITER].contains(&list.text()), "{}: told {list:?} at {imds}", leaks::OTHER_ROLE);
        ensure!(list.status == status, "the role list at {imds}: {list:?}, expected {status} for {reason}");
        for role in [READER, WRITER] {
            let answer = as_often_as_told(|| credentials(pod, imds, role))?;
            ensure!(answer.status != 200, "{}: given {role} at {imds}: {answer:?}", leaks::OTHER_ROLE);
            ensure!(answer.status == status, "{role} at {imds}: {answer:?}, expected {status} for {reason}");
        }
        let counted = refusals(system, reason)? - before;
        ensure!(counted == 3, "{counted} of 3 refusals are counted as {reason}");
    }
    Ok(())
}

/// Asks as an SDK does: again when it is told to, with 503. The server waits as long as a request may for a pod to be seen
/// at an address, so its refusal comes a moment before the agent's own time is over, or on a slow machine after that.
fn as_often_as_told(ask: impl Fn() -> Result<Answer>) -> Result<Answer> {
    eventually("something else than 503", SOON, || match ask() {
        Ok(answer) if answer.status == 503 => bail!("{answer:?}"),
        asked => Ok(asked),
    })?
}

/// How many requests the agent has refused for a reason.
fn refusals(system: &mut System, reason: &str) -> Result<u64> {
    metric(system, &format!("kiam_agent_refusals_total{{reason=\"{reason}\"}}"))
}

/// A counter of the agent's; 0 when it was never raised.
fn metric(system: &mut System, name: &str) -> Result<u64> {
    let answer = system.agent.as_ref().context("no agent")?.admin(&system.topology.node, "/metrics")?;
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Ok(value.unwrap_or(0))
}

/// How many records of pods' connections the kernel programs have that nobody has asked for. The agent's own probe has
/// some for a moment, every ten seconds.
fn records(system: &System) -> Result<usize> {
    let link: Value = serde_json::from_str(&system.topology.node.ip(&format!("-j link show dev {PROBE}"))?)?;
    let probe = link[0]["ifindex"].as_u64().context("the probe's interface")?;
    Ok(noted(system)?.into_iter().filter(|interface| *interface != probe).count())
}

/// The interface of each record, the probe's too.
fn noted(system: &System) -> Result<Vec<u64>> {
    let map = system.bpffs().join("kiam/v1/kiam_flows");
    let output = process::run(Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(map))?;
    let records: Vec<Value> = serde_json::from_str(&output)?;
    let interface = |record: &Value| {
        record.pointer("/formatted/key/interface").and_then(Value::as_u64).with_context(|| format!("{record}"))
    };
    records.iter().map(interface).collect()
}

fn of_every_class_by(driver: Driver) {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(driver)?;
        // The strictest: no answer that the address alone would give.
        attest(system, &kubepods, "require");
        let mut pods = Vec::new();
        for (number, qos) in (1..).zip([Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]) {
            pods.push((Attested::routed(system, &kubepods, number, &format!("role-{number}"), qos)?, number));
        }
        system.start()?;
        for (pod, number) in &pods {
            expect_served(system, pod, &format!("role-{number}"))?;
        }
        // The tree is read again for a pod that comes later.
        let late = Attested::routed(system, &kubepods, 9, "late", Qos::Burstable)?;
        expect_served(system, &late, "late")?;
        // Each record was read once, and is gone with that; those of the probe are cleared away by who sent it.
        eventually("no record is left", SOON, || {
            let left = noted(system)?;
            ensure!(left.is_empty(), "records of the interfaces {left:?}");
            Ok(())
        })
    });
}

/// Pods of every QoS class have their own roles (cgroupfs driver).
#[test]
fn pods_of_every_class_by_cgroupfs() {
    of_every_class_by(Driver::Cgroupfs);
}

/// Pods of every QoS class have their own roles (systemd driver).
#[test]
fn pods_of_every_class_by_systemd() {
    of_every_class_by(Driver::Systemd);
}

/// Pods behind one bridge are distinguished by their ports.
#[test]
fn pods_on_one_bridge_are_distinguished_by_port() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        system.topology.add_bridge(BRIDGE)?;
        attest(system, &kubepods, "require");
        system.agent_flags.push(format!("--host-interface={BRIDGE}"));
        let reader = Attested::bridged(system, &kubepods, 1, READER)?;
        let mut writer = Attested::bridged(system, &kubepods, 2, WRITER)?;
        system.start()?;
        expect_served(system, &reader, READER)?;
        expect_served(system, &writer, WRITER)?;
        writer.live_in(reader.cgroup.container());
        expect_refused(system, &writer.network, 403, "contradiction")?;
        writer.live_at_home();
        expect_served(system, &writer, WRITER)
    });
}

#[test]
fn a_kept_connection_stays_whose_it_was() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        // The process moves on to another pod's cgroup; its socket does not.
        let answers = Pod::new(&reader.network).run(|| {
            let mut connection = kiam_tests::clients::Connection::open(IMDS4, None, SOON)?;
            let mut ask = || {
                connection.send("GET", ROLES, &[])?;
                connection.answer()
            };
            let first = ask()?;
            let threads = writer.cgroup.container().join("cgroup.threads");
            std::fs::write(threads, nix::unistd::gettid().to_string())?;
            Ok([first, ask()?])
        })?;
        for answer in answers {
            ensure!(answer.text() == READER, "{answer:?}");
        }
        Ok(())
    });
}

/// A reused address does not belong to the old pod, however old its interface is.
#[test]
fn reused_address_is_not_the_old_pods() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let [old, other] = two_served(system, &kubepods)?;
        // To the server the old pod lives on, at this very address.
        system.kube.hold_watch_back(true);
        system.agent()?.kill_both()?;
        drop(old);
        let network = system.topology.add_pod(1)?;
        system.kube.delete_pod("open", "pod-1")?;
        let successor = PodObject::running("open", "successor", Some(WRITER), network.v4, network.v6);
        let new = Attested::new(system, &kubepods, &successor.uid, Qos::Burstable, network)?;
        system.kube.put_pod(&successor);
        // The agent is younger than the interface, so the interface's age tells it nothing.
        system.start_agent()?;
        expect_served(system, &other, WRITER)?;
        throughout("the old pod's role is not given", WATCHED, || {
            for imds in BOTH {
                let list = Pod::new(&new.network).get(imds, ROLES)?;
                ensure!(list.text() != READER, "{}: told {READER} at {imds}: {list:?}", leaks::OTHER_ROLE);
                let answer = credentials(&new.network, imds, READER)?;
                ensure!(answer.status != 200, "{}: given {READER} at {imds}: {answer:?}", leaks::OTHER_ROLE);
                ensure!(list.status == 503 && answer.status == 503, "it is told to ask again: {list:?} {answer:?}");
            }
            Ok(())
        })?;
        system.kube.hold_watch_back(false);
        expect_served(system, &new, WRITER)
    });
}

/// Of the VPC CNI's, which it gives to a pod on every node.
/// A pod is served at an IPv4 address that is not in its Kubernetes object.
#[test]
fn pod_at_an_address_unknown_to_kubernetes() {
    const EGRESS: &str = "169.254.172.5";
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, mut writer] = two_served(system, &kubepods)?;
        system.topology.node.ip(&format!("route add {EGRESS} dev {}", reader.network.interface))?;
        reader.network.ip(&format!("addr add {EGRESS}/32 dev eth0"))?;
        reader.network.ip(&format!("route add {IMDS4} via 169.254.1.1 src {EGRESS}"))?;
        expect_identity(system, &reader.network, IMDS4, READER)?;
        // No pod's cgroup, no pod.
        writer.live_in(kubepods.path());
        writer.network.ip(&format!("addr add {EGRESS}/32 dev eth0"))?;
        writer.network.ip(&format!("route add {IMDS4} via 169.254.1.1 src {EGRESS}"))?;
        system.topology.node.ip(&format!("route replace {EGRESS} dev {}", writer.network.interface))?;
        let [v4, _] = statuses(&writer.network)?;
        ensure!(v4 == 403, "{v4}");
        Ok(())
    });
}

/// A terminating pod and its successor have their own roles at the same address.
#[test]
fn terminating_pod_and_successor_at_one_address() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [mut leaving, _writer] = two_served(system, &kubepods)?;
        let PodNetwork { v4, v6, .. } = leaving.network;
        let successor = PodObject::running("open", "successor", Some(WRITER), v4, v6);
        let cgroup = kubepods.add_pod(&system.topology.node, &successor.uid, Qos::Guaranteed)?;
        system.kube.put_pod(&successor);
        leaving.live_in(cgroup.container());
        expect_served(system, &leaving, WRITER)?;
        leaving.live_at_home();
        expect_served(system, &leaving, READER)
    });
}

/// The status of the role list over both families.
fn statuses(pod: &PodNetwork) -> Result<[u16; 2]> {
    let status = |imds: IpAddr| anyhow::Ok(Pod::new(pod).get(imds, ROLES)?.status);
    Ok([status(BOTH[0])?, status(BOTH[1])?])
}

#[test]
fn evidence_required_by_each_mode() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let pods = [
            // In its cgroup; in none that is a pod's.
            Attested::routed(system, &kubepods, 1, READER, Qos::Burstable)?,
            Attested::routed(system, &kubepods, 2, WRITER, Qos::Burstable)?,
        ];
        let [attested, mut stranger] = pods;
        stranger.live_in(kubepods.path());
        system.start_server()?;
        for (mode, tree, expected) in [
            ("require", true, [200, 403]),
            ("prefer", true, [200, 403]),
            ("off", true, [200, 200]),
            // Pods in version 1 hierarchies: no cgroup that the programs know.
            ("require", false, [403, 403]),
            ("prefer", false, [200, 200]),
            ("off", false, [200, 200]),
        ] {
            attest(system, &kubepods, mode);
            if !tree {
                let flag = system.agent_flags.pop().context("the flag of the tree")?;
                system.agent_flags.push(format!("{flag}/none"));
            }
            system.spawn_agent()?;
            let ready = expected != [403, 403];
            if ready {
                system.agent()?.wait_ready()?;
            }
            eventually("the server is connected", SOON, || {
                ensure!(metric(system, "kiam_agent_server_connected")? == 1);
                Ok(())
            })?;
            let health = String::from_utf8(system.agent()?.health()?.stdout)?;
            ensure!(
                health.contains("FAIL  kubepods: there is no kubepods cgroup") != ready,
                "{mode}, {tree}: {health}"
            );
            for (pod, expected) in [&attested, &stranger].into_iter().zip(expected) {
                let found = statuses(&pod.network)?;
                ensure!(found == [expected; 2], "--attestation={mode}, a tree: {tree}: {found:?}, not {expected}");
            }
            system.agent()?.stop()?;
        }
        Ok(())
    });
}

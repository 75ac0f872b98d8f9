//! Roles by attestation: the kernel reports the cgroup in which a connection was opened. The clients are in control
//! groups as a kubelet makes them, and each test shows that the same client is served once it is in its own group.

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

/// Time for which an answer must not change: three times the server's wait for an unknown pod.
const WATCHED: Duration = Duration::from_secs(3);
/// Bridge of the node.
const BRIDGE: &str = "cni0";
/// Interface of the agent's reachability probe.
const PROBE: &str = "kiam-probe0";
/// Roles of the first two pods.
const READER: &str = "reader";
const WRITER: &str = "writer";

/// A pod with a network and a control group.
struct Attested {
    network: PodNetwork,
    cgroup: PodCgroup,
}

impl Attested {
    /// Makes a pod with clients in its own container.
    fn new(system: &System, kubepods: &Kubepods, uid: &str, qos: Qos, mut network: PodNetwork) -> Result<Self> {
        let cgroup = kubepods.add_pod(&system.topology.node, uid, qos)?;
        network.live_in(cgroup.container());
        Ok(Self { network, cgroup })
    }

    /// Makes a pod behind a routed veth, with this role in Kubernetes.
    fn routed(system: &System, kubepods: &Kubepods, number: u8, role: &str, qos: Qos) -> Result<Self> {
        let network = system.topology.add_pod(number)?;
        Self::announced(system, kubepods, network, number, role, qos)
    }

    /// Makes a pod behind a port of the bridge.
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

    /// Puts its clients into this group from now on.
    fn live_in(&mut self, cgroup: &Path) {
        self.network.live_in(cgroup);
    }

    /// Puts its clients back into its own container.
    fn live_at_home(&mut self) {
        self.network.live_in(self.cgroup.container());
    }
}

/// Sets the agent's attestation mode and its kubepods cgroup.
fn attest(system: &mut System, kubepods: &Kubepods, mode: &str) {
    system.agent_flags.retain(|flag| !flag.starts_with("--attestation=") && !flag.starts_with("--kubepods-cgroup="));
    system.agent_flags.push(format!("--attestation={mode}"));
    system.agent_flags.push(format!("--kubepods-cgroup={}", kubepods.path().display()));
}

/// Serves a reader and a writer behind routed veths, with an agent in the default mode.
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

/// Asserts that a client gets neither the name nor the credentials of a role of these tests, but this status for this
/// reason.
fn expect_refused(system: &mut System, pod: &PodNetwork, status: u16, reason: &str) -> Result<()> {
    for imds in BOTH {
        let before = refusals(system, reason)?;
        let list = retry_503(|| Pod::new(pod).get(imds, ROLES))?;
        ensure!(![READER, WRITER].contains(&list.text()), "{}: role list {list:?} at {imds}", leaks::OTHER_ROLE);
        ensure!(list.status == status, "the role list at {imds}: {list:?}, expected {status} for {reason}");
        for role in [READER, WRITER] {
            let answer = retry_503(|| credentials(pod, imds, role))?;
            ensure!(answer.status != 200, "{}: credentials of {role} at {imds}: {answer:?}", leaks::OTHER_ROLE);
            ensure!(answer.status == status, "{role} at {imds}: {answer:?}, expected {status} for {reason}");
        }
        let counted = refusals(system, reason)? - before;
        ensure!(counted == 3, "{counted} of 3 refusals are counted as {reason}");
    }
    Ok(())
}

/// Repeats a request as an SDK does, as long as the answer is 503. The server waits for an unknown pod as long as a
/// request may take, so its refusal arrives just before the agent's timeout, or on a slow machine after it.
fn retry_503(request: impl Fn() -> Result<Answer>) -> Result<Answer> {
    eventually("another status than 503", SOON, || match request() {
        Ok(answer) if answer.status == 503 => bail!("{answer:?}"),
        answer => Ok(answer),
    })?
}

/// Returns the number of requests that the agent has refused for a reason.
fn refusals(system: &mut System, reason: &str) -> Result<u64> {
    metric(system, &format!("kiam_agent_refusals_total{{reason=\"{reason}\"}}"))
}

/// Returns a counter of the agent; 0 if it was never increased.
fn metric(system: &mut System, name: &str) -> Result<u64> {
    let answer = system.agent.as_ref().context("no agent")?.admin(&system.topology.node, "/metrics")?;
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    Ok(value.unwrap_or(0))
}

/// Returns the number of unread connection records of pods. The agent's own probe has some for a moment, every ten
/// seconds.
fn records(system: &System) -> Result<usize> {
    let link: Value = serde_json::from_str(&system.topology.node.ip(&format!("-j link show dev {PROBE}"))?)?;
    let probe = link[0]["ifindex"].as_u64().context("the probe's interface")?;
    Ok(record_interfaces(system)?.into_iter().filter(|interface| *interface != probe).count())
}

/// Returns the interface of each record, including the probe's.
fn record_interfaces(system: &System) -> Result<Vec<u64>> {
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
        // The strictest mode: an address alone never yields an answer.
        attest(system, &kubepods, "require");
        let mut pods = Vec::new();
        for (number, qos) in (1..).zip([Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]) {
            pods.push((Attested::routed(system, &kubepods, number, &format!("role-{number}"), qos)?, number));
        }
        system.start()?;
        for (pod, number) in &pods {
            expect_served(system, pod, &format!("role-{number}"))?;
        }
        // The tree is read again for a pod that is added later.
        let late = Attested::routed(system, &kubepods, 9, "late", Qos::Burstable)?;
        expect_served(system, &late, "late")?;
        // Reading a record removes it; the prober removes those of the probe.
        eventually("no record is left", SOON, || {
            let left = record_interfaces(system)?;
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
fn kept_connection_stays_with_its_pod() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        // The process moves to another pod's cgroup; its socket does not.
        let answers = Pod::new(&reader.network).run(|| {
            let mut connection = kiam_tests::clients::Connection::open(IMDS4, None, SOON)?;
            let mut request = || {
                connection.send("GET", ROLES, &[])?;
                connection.answer()
            };
            let first = request()?;
            let threads = writer.cgroup.container().join("cgroup.threads");
            std::fs::write(threads, nix::unistd::gettid().to_string())?;
            Ok([first, request()?])
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
        // To the server the old pod still exists, at this very address.
        system.kube.hold_watch_back(true);
        system.agent()?.kill_both()?;
        drop(old);
        let network = system.topology.add_pod(1)?;
        system.kube.delete_pod("open", "pod-1")?;
        let successor = PodObject::running("open", "successor", Some(WRITER), network.v4, network.v6);
        let new = Attested::new(system, &kubepods, &successor.uid, Qos::Burstable, network)?;
        system.kube.put_pod(&successor);
        // The agent is younger than the interface, so the interface's age proves nothing.
        system.start_agent()?;
        expect_served(system, &other, WRITER)?;
        throughout("the old pod's role is not returned", WATCHED, || {
            for imds in BOTH {
                let list = Pod::new(&new.network).get(imds, ROLES)?;
                ensure!(list.text() != READER, "{}: role list {READER} at {imds}: {list:?}", leaks::OTHER_ROLE);
                let answer = credentials(&new.network, imds, READER)?;
                ensure!(answer.status != 200, "{}: credentials of {READER} at {imds}: {answer:?}", leaks::OTHER_ROLE);
                ensure!(list.status == 503 && answer.status == 503, "the answers are not 503: {list:?} {answer:?}");
            }
            Ok(())
        })?;
        system.kube.hold_watch_back(false);
        expect_served(system, &new, WRITER)
    });
}

/// A pod is served at an IPv4 address that is not in its Kubernetes object, such as the VPC CNI gives to a pod on every
/// node.
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
        // Without a pod's cgroup there is no pod.
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

/// Returns the status of the role list over both families.
fn statuses(pod: &PodNetwork) -> Result<[u16; 2]> {
    let status = |imds: IpAddr| anyhow::Ok(Pod::new(pod).get(imds, ROLES)?.status);
    Ok([status(BOTH[0])?, status(BOTH[1])?])
}

#[test]
fn evidence_required_by_each_mode() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let pods = [
            // One in its own cgroup, and one in no cgroup of a pod.
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
            // Pods in version 1 hierarchies have no cgroup that the programs see.
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
            // An agent that is still starting has another reason not to be ready.
            eventually("the agent reports whether it finds the kubepods cgroup", SOON, || {
                let health = String::from_utf8(system.agent()?.health()?.stdout)?;
                let problem = health.contains("FAIL  kubepods: there is no kubepods cgroup");
                ensure!(problem != ready, "{mode}, {tree}: {health}");
                Ok(())
            })?;
            for (pod, expected) in [&attested, &stranger].into_iter().zip(expected) {
                let found = statuses(&pod.network)?;
                ensure!(found == [expected; 2], "--attestation={mode}, a tree: {tree}: {found:?}, not {expected}");
            }
            system.agent()?.stop()?;
        }
        Ok(())
    });
}

//! Requests and assertions that several modules of this tier share.

use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{Answer, BOTH, Pod, ROLES, Reply, VAIN},
    fakes::sts::Sts,
    leaks,
    node::{netns::Netns, topology::PodNetwork},
    system::System,
};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

/// Requests the credentials of a role and returns the ARN that STS reports for them.
pub(crate) fn identity(system: &System, pod: &PodNetwork, imds: IpAddr, role: &str) -> Result<String> {
    let answer = credentials(pod, imds, role)?;
    ensure!(answer.status == 200, "credentials of {role}: {answer:?}");
    let key = answer.json()?["AccessKeyId"].as_str().context("an AccessKeyId")?.to_owned();
    Sts::identity_of(&system.topology.uplink, &key)
}

/// Requests the credentials of a role.
pub(crate) fn credentials(pod: &PodNetwork, imds: IpAddr, role: &str) -> Result<Answer> {
    Pod::new(pod).get(imds, &format!("{ROLES}{role}"))
}

/// Asserts that STS reports a pod's credentials as a session of this role.
pub(crate) fn expect_identity(system: &System, pod: &PodNetwork, imds: IpAddr, role: &str) -> Result<()> {
    let arn = identity(system, pod, imds, role)?;
    ensure!(arn.contains(&format!(":assumed-role/{role}/")), "{}: asked for {role}, got {arn}", leaks::OTHER_ROLE);
    Ok(())
}

/// Asserts that a pod gets its role over both families.
pub(crate) fn expect_role(pod: &PodNetwork, role: &str) -> Result<()> {
    for imds in BOTH {
        let answer = Pod::new(pod).get(imds, ROLES)?;
        ensure!(answer.status == 200 && answer.text() == role, "{} at {imds}: {answer:?}", pod.interface);
    }
    Ok(())
}

/// Asserts that a pod gets no answer over either family, and that none of its packets is at the canary.
pub(crate) fn expect_nothing(system: &System, pod: &PodNetwork) -> Result<()> {
    for imds in BOTH {
        let reply = Pod::new(pod).attempt(imds, ROLES, VAIN)?;
        // The leak first, which would be worse than any answer.
        system.expect_no_leak()?;
        ensure!(reply.answer().is_none(), "{} at {imds}: {reply:?}", pod.interface);
    }
    Ok(())
}

/// Asserts the outcome of a request over each family, and that none of its packets is at the canary.
pub(crate) fn expect_reply(system: &System, pod: &PodNetwork, expected: [&[Reply]; 2]) -> Result<()> {
    for (imds, expected) in BOTH.into_iter().zip(expected) {
        let reply = Pod::new(pod).attempt(imds, ROLES, VAIN)?;
        system.expect_no_leak()?;
        ensure!(expected.contains(&reply), "{} at {imds}: {reply:?}, expected one of {expected:?}", pod.interface);
    }
    Ok(())
}

/// Sends everything that a pod can send to the IMDS with sockets: TCP to the served port and another one, UDP to both.
pub(crate) fn knock(pod: &PodNetwork) -> Result<()> {
    knock_for(pod, Duration::from_millis(300))
}

/// Like [`knock`], without waiting for anything.
pub(crate) fn knock_once(pod: &PodNetwork) -> Result<()> {
    knock_for(pod, Duration::from_millis(1))
}

fn knock_for(pod: &PodNetwork, patience: Duration) -> Result<()> {
    Pod::new(pod).run(|| {
        for imds in BOTH {
            for port in [80, 8080] {
                let address = SocketAddr::new(imds, port);
                // The answer does not matter here.
                drop(std::net::TcpStream::connect_timeout(&address, patience));
                let any: IpAddr = if imds.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
                let socket = UdpSocket::bind((any, 0))?;
                drop(socket.send_to(b"GET / HTTP/1.1\r\n\r\n", address));
            }
        }
        Ok(())
    })
}

/// Shows that each of [`knock`]'s packets reaches the canary when nothing is in the way, and forgets them.
pub(crate) fn control_knock(system: &System, pod: &PodNetwork) -> Result<()> {
    knock(pod)?;
    system.canary.settle(&system.topology.node)?;
    for imds in BOTH {
        let packets = system.canary.packets_from(pod.address_like(imds));
        for (protocol, port) in [(6, 80), (6, 8080), (17, 80), (17, 8080)] {
            let found = packets.iter().any(|packet| packet.protocol == protocol && packet.port == Some(port));
            ensure!(found, "control: protocol {protocol} to port {port} did not reach the canary: {packets:?}");
        }
    }
    system.canary.forget_closed(&system.topology.node, pod)
}

/// Returns the number of connections of a namespace in a TCP state, as `ss` names it, with the IMDS port as the local
/// one.
pub(crate) fn sockets_in(netns: &Netns, state: &str) -> Result<usize> {
    let output =
        kiam_tests::node::process::run(netns.command("ss").args(["-Htn", "state", state, "sport", "=", ":80"]))?;
    Ok(output.lines().count())
}

/// Returns a TCP counter of a namespace, such as `OutRsts` or `SyncookiesSent` (proc_net(5), snmp and netstat).
pub(crate) fn tcp_counter(netns: &Netns, name: &str) -> Result<u64> {
    let tables = netns.enter(|| {
        let read = |table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        Ok(read("snmp")? + &read("netstat")?)
    })?;
    for prefix in ["Tcp: ", "TcpExt: "] {
        let mut lines = tables.lines().filter_map(|line| line.strip_prefix(prefix));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        if let Some((_, value)) = names.split(' ').zip(values.split(' ')).find(|(key, _)| *key == name) {
            return Ok(value.parse()?);
        }
    }
    anyhow::bail!("no counter {name}")
}

/// Returns the agent's count of packets with this reason, since the maps were made.
pub(crate) fn counted(system: &System, reason: &str) -> Result<u64> {
    let agent = system.agent.as_ref().context("an agent")?;
    let answer = agent.admin(&system.topology.node, "/metrics")?;
    let of_reason =
        |line: &&str| line.starts_with("kiam_agent_packets_total{") && line.contains(&format!("\"{reason}\""));
    let counts =
        answer.text().lines().filter(of_reason).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

fn pin(system: &System, name: &str) -> PathBuf {
    system.bpffs().join("kiam").join(name)
}

/// Returns the generation of the agent that owns the datapath, as `bpftool` shows it.
pub(crate) fn generation(system: &System) -> Result<u64> {
    let entry = owner(system)?;
    entry["formatted"]["value"]["generation"].as_u64().with_context(|| format!("{entry}"))
}

/// Writes another generation into the map of the owner.
pub(crate) fn set_generation(system: &System, generation: u64) -> Result<()> {
    let entry = owner(system)?;
    let bytes = entry["value"].as_array().context("a value")?.iter().filter_map(serde_json::Value::as_str);
    let mut value: Vec<String> = bytes.map(|byte| byte.trim_start_matches("0x").to_owned()).collect();
    for (to, from) in value.iter_mut().zip(generation.to_ne_bytes()) {
        *to = format!("{from:02x}");
    }
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(pin(system, "kiam_owner"));
    command.args(["key", "hex", "00", "00", "00", "00", "value", "hex"]).args(value);
    kiam_tests::node::process::run(&mut command).map(drop)
}

fn owner(system: &System) -> Result<serde_json::Value> {
    let mut command = Command::new("bpftool");
    let text =
        kiam_tests::node::process::run(command.args(["-j", "map", "dump", "pinned"]).arg(pin(system, "kiam_owner")))?;
    let entries: serde_json::Value = serde_json::from_str(&text)?;
    Ok(entries[0].clone())
}

/// Removes the listening sockets from their slots, as the end of their process does.
pub(crate) fn empty_slots(system: &System) -> Result<()> {
    for slot in ["00", "01"] {
        let mut command = Command::new("bpftool");
        command.args(["map", "delete", "pinned"]).arg(pin(system, "v1/kiam_listeners"));
        kiam_tests::node::process::run(command.args(["key", "hex", slot, "00", "00", "00"]))?;
    }
    Ok(())
}

/// Starts a system with these flags of the agent and one pod that is served.
pub(crate) fn serving(system: &mut System, flags: &[&str]) -> Result<PodNetwork> {
    system.agent_flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    system.serving_pod("reader")
}

/// Runs a command line without quotes on the node.
pub(crate) fn run(node: &Netns, line: &str) -> Result<String> {
    let mut words = line.split(' ');
    kiam_tests::node::process::run(node.command(words.next().context("a program")?).args(words))
        .with_context(|| line.to_owned())
}

//! Cost of the hooks and of the guard under `--host-network-pods=enforce`.

use super::{Cost, PACKETS, cost};
use anyhow::Result;
use kiam_common::abi::{IMDS_PORT, PROG_CONNECT4, PROG_GUARD};
use kiam_tests::{
    clients::IMDS4,
    node::{
        cgroups::{Driver, Kubepods, PodCgroup, Qos},
        topology::{NODE_V4, UPLINK_V4},
    },
    system::System,
};
use nix::unistd::gettid;
use std::{
    fs,
    net::{TcpStream, UdpSocket},
};

const CONNECTIONS: usize = 2_000;
/// A UID that no pod of this machine has.
const UID: &str = "11111111-1111-1111-1111-111111111111";
/// A port without a listener.
const DISCARD: u16 = 9;

pub(super) fn count() -> Result<Vec<Cost>> {
    let mut system = System::stage_datapath()?;
    let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
    let pod = kubepods.add_pod(&system.topology.node, UID, Qos::Burstable)?;
    system.agent_flags = ["--level=warn", "--host-network-pods=enforce", "--exempt=none"].map(str::to_owned).to_vec();
    system.agent_flags.push(format!("--kubepods-cgroup={}", kubepods.path().display()));
    system.spawn_agent()?.wait_armed()?;
    let in_pod = |work: fn() -> Result<()>| as_pod(&system, &pod, work);
    Ok(vec![
        cost("connect() to the IMDS, in a hostNetwork pod", PROG_CONNECT4, || in_pod(connect_to_imds))?,
        cost("connect() to another address, in any pod", PROG_CONNECT4, || in_pod(connect_elsewhere))?,
        cost("packet that leaves by an uplink", PROG_GUARD, || in_pod(send_by_the_uplink))?,
    ])
}

/// Runs `work` on the node's network, in a thread that is in the pod's cgroup and ends with the work.
fn as_pod(system: &System, pod: &PodCgroup, work: fn() -> Result<()>) -> Result<()> {
    system.topology.node.enter(|| {
        fs::write(pod.container().join("cgroup.threads"), gettid().to_string())?;
        work()
    })
}

fn connect_to_imds() -> Result<()> {
    for _ in 0..CONNECTIONS {
        drop(TcpStream::connect((IMDS4, IMDS_PORT))?);
    }
    Ok(())
}

fn connect_elsewhere() -> Result<()> {
    for _ in 0..CONNECTIONS {
        // Refused, which costs the hook nothing.
        drop(TcpStream::connect((NODE_V4, DISCARD)));
    }
    Ok(())
}

fn send_by_the_uplink() -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    for _ in 0..PACKETS {
        // ICMP refuses some of them; the packet was sent all the same.
        drop(socket.send_to(b"elsewhere", (UPLINK_V4, DISCARD)));
    }
    Ok(())
}

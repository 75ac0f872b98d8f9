//! Connections that are half-open for as long as a test wants: the node has answered their SYNs, and its answers wait
//! on their way to the pod.

use super::{BOTH, Connection};
use crate::node::{
    process,
    topology::{PodNetwork, Topology},
};
use anyhow::{Context as _, Result};
use socket2::Socket;
use std::{
    iter::repeat_n,
    net::{SocketAddr, UdpSocket},
};

/// A queue that lets nothing through: a byte a second, where a SYN-ACK is a frame of 74 at least.
const SHUT: &str = "rate 8bit burst 100b limit 1mb";
/// The same queue, as good as none.
const OPEN: &str = "rate 1gbit burst 1mb limit 1mb";
/// A datagram of this many bytes, 77 with its headers, uses up what a new queue would let through at once.
const ALLOWANCE: usize = 35;
/// Where nobody listens: the discard port (RFC 863).
const DISCARD: u16 = 9;

/// Connections of one pod to M, half-open.
#[derive(Debug)]
pub struct HalfOpen(Vec<Socket>);

impl HalfOpen {
    /// Begins as many over each family. From now on the pod gets nothing from the node and sends nothing to M, so that
    /// no SYN is sent twice.
    ///
    /// # Errors
    /// `tc` or `ip` says why.
    pub fn begin(topology: &Topology, pod: &PodNetwork, each: usize) -> Result<Self> {
        set_queue(topology, pod, SHUT)?;
        send_to_pod(topology, pod)?;
        let all = BOTH.into_iter().flat_map(|m| repeat_n(m, each));
        let sockets = pod.enter(|| all.map(|m| Connection::begin(m, None)).collect())?;
        for m in BOTH {
            pod.ip(&format!("route add blackhole {m}"))?;
        }
        Ok(Self(sockets))
    }

    /// Lets the node's answers go on to the pod, and the pod's to M.
    ///
    /// # Errors
    /// `tc` or `ip` says why.
    pub fn release(self, topology: &Topology, pod: &PodNetwork) -> Result<Vec<Socket>> {
        for m in BOTH {
            pod.ip(&format!("route del blackhole {m}"))?;
        }
        set_queue(topology, pod, OPEN)?;
        // With the next packet the queue goes on, at its new rate.
        send_to_pod(topology, pod)?;
        Ok(self.0)
    }
}

fn set_queue(topology: &Topology, pod: &PodNetwork, parameters: &str) -> Result<()> {
    let mut command = topology.node.command("tc");
    command.args(["qdisc", "replace", "dev", &pod.interface, "root", "tbf"]).args(parameters.split(' '));
    process::run(&mut command).map(drop)
}

fn send_to_pod(topology: &Topology, pod: &PodNetwork) -> Result<()> {
    topology.node.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        let address = SocketAddr::from((pod.v4, DISCARD));
        socket.send_to(&[0; ALLOWANCE], address).context("send a datagram to the pod")?;
        Ok(())
    })
}

//! Connections that stay half-open as long as a test needs: the node has answered their SYNs, and its answers are held
//! back on their way to the pod.

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

/// Parameters of a queue that lets nothing through: a byte per second, where a SYN-ACK is a frame of at least 74.
const SHUT: &str = "rate 8bit burst 100b limit 1mb";
/// Parameters of a queue without an effect.
const OPEN: &str = "rate 1gbit burst 1mb limit 1mb";
/// Bytes of a datagram, 77 with its headers, that uses up what a new queue lets through at once.
const ALLOWANCE: usize = 35;
/// A port without a listener: discard (RFC 863).
const DISCARD: u16 = 9;

/// Half-open connections of one pod to the IMDS.
#[derive(Debug)]
pub struct HalfOpen(Vec<Socket>);

impl HalfOpen {
    /// Opens `each` connections over each family. From now on the pod receives nothing from the node and sends nothing
    /// to the IMDS, so that no SYN is retransmitted.
    pub fn begin(topology: &Topology, pod: &PodNetwork, each: usize) -> Result<Self> {
        set_queue(topology, pod, SHUT)?;
        send_to_pod(topology, pod)?;
        let all = BOTH.into_iter().flat_map(|imds| repeat_n(imds, each));
        let sockets = pod.enter(|| all.map(|imds| Connection::begin(imds, None)).collect())?;
        for imds in BOTH {
            pod.ip(&format!("route add blackhole {imds}"))?;
        }
        Ok(Self(sockets))
    }

    /// Releases the node's answers to the pod, and the pod's to the IMDS.
    pub fn release(self, topology: &Topology, pod: &PodNetwork) -> Result<Vec<Socket>> {
        for imds in BOTH {
            pod.ip(&format!("route del blackhole {imds}"))?;
        }
        set_queue(topology, pod, OPEN)?;
        // The queue resumes with the next packet, at its new rate.
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

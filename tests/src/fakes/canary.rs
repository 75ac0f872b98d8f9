//! The stand-in for the real IMDS: permissive, with a node role of its own, and with a counter of every packet that
//! reaches it.
//!
//! What must never happen is that a packet of a pod gets here. A request that was answered is the worst case; a single
//! SYN is a failure too. So the packets are captured, not only the requests.

mod capture;
mod imds;

use crate::{
    eventually::eventually,
    fakes::http_server::HttpServer,
    leaks,
    node::{
        netns::Netns,
        topology::{IMDS_V4, IMDS_V6, PodNetwork, Sender, Topology},
    },
};
use anyhow::{Context as _, Result, ensure};
use capture::Capture;
pub use capture::Packet;
use imds::Imds;
pub use imds::{ACCESS_KEY_ID, NODE_ROLE, Request};
use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

/// How long a packet may take from the node to the canary's counter.
const CAPTURE_SECONDS_MAX: u64 = 10;
/// Ports that [`Canary::settle`] sends its markers to; above everything that a test uses.
const FIRST_MARKER_PORT: u16 = 61_000;

/// The running stand-in.
#[derive(Debug)]
pub struct Canary {
    capture: Capture,
    imds: Arc<Imds>,
    next_marker: AtomicU16,
    _server: HttpServer,
}

impl Canary {
    /// Listens at M, both families, in the uplink's namespace, and captures.
    ///
    /// # Errors
    /// The addresses are not there, or packets cannot be captured (CAP_NET_RAW).
    pub fn start(uplink: &Netns) -> Result<Self> {
        let capture = Capture::start(uplink)?;
        let imds = Arc::new(Imds::default());
        let listeners = uplink.enter(|| {
            let bind = |address: IpAddr| TcpListener::bind(SocketAddr::new(address, 80)).context("listen at M");
            Ok(vec![bind(IMDS_V4.into())?, bind(IMDS_V6.into())?])
        })?;
        let server = HttpServer::start(listeners, Arc::<Imds>::clone(&imds) as Arc<_>)?;
        Ok(Self { capture, imds, next_marker: AtomicU16::new(FIRST_MARKER_PORT), _server: server })
    }

    /// Requests answered so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.imds.requests()
    }

    /// Packets to M captured so far that came from a sender, without the markers of [`Canary::settle`].
    #[must_use]
    pub fn packets_of(&self, sender: Sender) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| Sender::of(packet.source) == sender && !is_marker(packet));
        packets
    }

    /// Packets to M captured so far that came from one address.
    #[must_use]
    pub fn packets_from(&self, source: IpAddr) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| packet.source == source && !is_marker(packet));
        packets
    }

    /// Waits until every packet that has left the node is counted: the node sends a marker, and the marker is seen.
    /// It also shows that the capture works and that the node's own way to M is open.
    ///
    /// # Errors
    /// The marker does not arrive.
    pub fn settle(&self, node: &Netns) -> Result<()> {
        for m in [IpAddr::from(IMDS_V4), IpAddr::from(IMDS_V6)] {
            if m.is_ipv6() && node.has_no_ipv6()? {
                continue;
            }
            let port = self.next_marker.fetch_add(1, Ordering::Relaxed);
            let socket = node.enter(|| {
                let any: SocketAddr = if m.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
                Ok(UdpSocket::bind(any)?)
            })?;
            eventually(
                &format!("the node's own packet reaches {m}"),
                Duration::from_secs(CAPTURE_SECONDS_MAX),
                || {
                    // An ICMP error of the marker before is not this one's.
                    drop(socket.send_to(b"marker", SocketAddr::new(m, port)));
                    let seen = self.capture.packets().iter().any(|packet| packet.port == Some(port));
                    ensure!(seen, "no packet to port {port} captured");
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Asserts the invariant of every state: no packet of a pod, nor of anybody but the node, is here.
    ///
    /// # Errors
    /// A packet is; the error begins with [`leaks::CANARY`].
    pub fn expect_none_from_pods(&self, node: &Netns) -> Result<()> {
        self.settle(node)?;
        for sender in [Sender::Pod, Sender::Other] {
            let packets = self.packets_of(sender);
            let first = packets.first();
            ensure!(packets.is_empty(), "{}: {} of {sender:?}, first {first:?}", leaks::CANARY, packets.len());
        }
        Ok(())
    }

    /// Shows, with nothing of ours in the way, that the pod's requests do reach the canary, over both families; then
    /// forgets them. A test whose pod could not have reached it anyway would show nothing.
    ///
    /// # Errors
    /// A request or a packet does not arrive.
    pub fn control_reaches(&self, topology: &Topology, pod: &PodNetwork) -> Result<()> {
        for (m, source) in [(IpAddr::from(IMDS_V4), IpAddr::from(pod.v4)), (IMDS_V6.into(), pod.v6.into())] {
            let answer = crate::clients::Pod::new(pod).get(m, "/latest/meta-data/iam/security-credentials/")?;
            ensure!(answer.text() == NODE_ROLE, "control: the pod got {answer:?} from {m}");
            self.settle(&topology.node)?;
            ensure!(!self.packets_from(source).is_empty(), "control: no packet of {source} was captured");
            ensure!(self.requests().iter().any(|request| request.peer.ip() == source), "control: no request logged");
        }
        self.forget_closed(&topology.node, pod)
    }

    /// Forgets what was sent from a namespace on purpose, once all its connections with M are closed: until then an
    /// acknowledgement may still be on its way.
    ///
    /// # Errors
    /// A connection stays open.
    pub fn forget_closed(&self, node: &Netns, sender: &Netns) -> Result<()> {
        let filter = format!("dst {IMDS_V4} or dst [{IMDS_V6}]");
        eventually("the connections with M are closed", Duration::from_secs(CAPTURE_SECONDS_MAX), || {
            let sockets = crate::node::process::run(sender.command("ss").args(["-Htan", &filter]))?;
            let open: Vec<&str> = sockets.lines().filter(|line| !line.starts_with("TIME-WAIT")).collect();
            ensure!(open.is_empty(), "{open:?}");
            Ok(())
        })?;
        self.settle(node)?;
        self.forget();
        Ok(())
    }

    /// Forgets all packets and requests.
    pub fn forget(&self) {
        self.capture.forget();
        self.imds.forget();
    }
}

/// Whether [`Canary::settle`] sent it.
fn is_marker(packet: &Packet) -> bool {
    packet.protocol == capture::UDP
        && packet.port.is_some_and(|port| port >= FIRST_MARKER_PORT)
        && Sender::of(packet.source) == Sender::Node
}

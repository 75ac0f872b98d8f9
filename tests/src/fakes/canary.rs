//! The fake IMDS: it permits everything, has a node role of its own, and counts every packet that reaches it.
//!
//! No packet of a pod may ever get here. An answered request is the worst case, but a single SYN is a failure too, so
//! packets are captured and not only requests.

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

/// Time a packet may take from the node to the canary's counter.
const CAPTURE_SECONDS_MAX: u64 = 10;
/// First port for the markers of [`Canary::settle`]; above every port that a test uses.
const FIRST_MARKER_PORT: u16 = 61_000;

/// A running fake IMDS.
#[derive(Debug)]
pub struct Canary {
    capture: Capture,
    imds: Arc<Imds>,
    next_marker: AtomicU16,
    _server: HttpServer,
}

impl Canary {
    /// Listens at both addresses of the IMDS, in the uplink's namespace, and captures packets. Needs CAP_NET_RAW.
    pub fn start(uplink: &Netns) -> Result<Self> {
        let capture = Capture::start(uplink)?;
        let imds = Arc::new(Imds::default());
        let listeners = uplink.enter(|| {
            let bind =
                |address: IpAddr| TcpListener::bind(SocketAddr::new(address, 80)).context("listen at the IMDS address");
            Ok(vec![bind(IMDS_V4.into())?, bind(IMDS_V6.into())?])
        })?;
        let server = HttpServer::start(listeners, Arc::<Imds>::clone(&imds) as Arc<_>)?;
        Ok(Self { capture, imds, next_marker: AtomicU16::new(FIRST_MARKER_PORT), _server: server })
    }

    /// Returns the requests answered so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.imds.requests()
    }

    /// Returns the captured packets to the IMDS from a sender, without the markers of [`Canary::settle`].
    #[must_use]
    pub fn packets_of(&self, sender: Sender) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| Sender::of(packet.source) == sender && !is_marker(packet));
        packets
    }

    /// Returns the captured packets to the IMDS from an address.
    #[must_use]
    pub fn packets_from(&self, source: IpAddr) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        packets.retain(|packet| packet.source == source && !is_marker(packet));
        packets
    }

    /// Waits until every packet that has left the node is counted: the node sends a marker, and the capture sees it.
    /// This also shows that the capture works and that the node's own route to the IMDS is open.
    pub fn settle(&self, node: &Netns) -> Result<()> {
        for imds in [IpAddr::from(IMDS_V4), IpAddr::from(IMDS_V6)] {
            if imds.is_ipv6() && node.has_no_ipv6()? {
                continue;
            }
            let port = self.next_marker.fetch_add(1, Ordering::Relaxed);
            let socket = node.enter(|| {
                let any: SocketAddr = if imds.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
                Ok(UdpSocket::bind(any)?)
            })?;
            eventually(
                &format!("the node's own packet reaches {imds}"),
                Duration::from_secs(CAPTURE_SECONDS_MAX),
                || {
                    // An ICMP error may belong to the previous marker.
                    drop(socket.send_to(b"marker", SocketAddr::new(imds, port)));
                    let seen = self.capture.packets().iter().any(|packet| packet.port == Some(port));
                    ensure!(seen, "no packet to port {port} captured");
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Asserts the invariant of every state: no packet of a pod, or of any other sender but the node, has arrived. The
    /// error begins with [`leaks::CANARY`].
    pub fn expect_none_from_pods(&self, node: &Netns) -> Result<()> {
        self.settle(node)?;
        for sender in [Sender::Pod, Sender::Other] {
            let packets = self.packets_of(sender);
            let first = packets.first();
            ensure!(packets.is_empty(), "{}: {} of {sender:?}, first {first:?}", leaks::CANARY, packets.len());
        }
        Ok(())
    }

    /// Shows that a pod's requests reach the canary over both families when nothing is in the way, then forgets them.
    /// Without this control, a test could pass because its pod has no network.
    pub fn control_reaches(&self, topology: &Topology, pod: &PodNetwork) -> Result<()> {
        for (imds, source) in [(IpAddr::from(IMDS_V4), IpAddr::from(pod.v4)), (IMDS_V6.into(), pod.v6.into())] {
            let answer = crate::clients::Pod::new(pod).get(imds, "/latest/meta-data/iam/security-credentials/")?;
            ensure!(answer.text() == NODE_ROLE, "control: the pod got {answer:?} from {imds}");
            self.settle(&topology.node)?;
            ensure!(!self.packets_from(source).is_empty(), "control: no packet of {source} was captured");
            ensure!(self.requests().iter().any(|request| request.peer.ip() == source), "control: no request logged");
        }
        self.forget_closed(&topology.node, pod)
    }

    /// Forgets packets that were sent on purpose from a namespace, once all its connections with the IMDS are closed:
    /// until then an acknowledgement may still be on its way.
    pub fn forget_closed(&self, node: &Netns, sender: &Netns) -> Result<()> {
        let filter = format!("dst {IMDS_V4} or dst [{IMDS_V6}]");
        eventually("the connections with the IMDS are closed", Duration::from_secs(CAPTURE_SECONDS_MAX), || {
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

/// Returns whether [`Canary::settle`] sent it.
fn is_marker(packet: &Packet) -> bool {
    packet.protocol == capture::UDP
        && packet.port.is_some_and(|port| port >= FIRST_MARKER_PORT)
        && Sender::of(packet.source) == Sender::Node
}

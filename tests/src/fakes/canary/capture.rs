//! Capture of every packet to the IMDS that arrives in the uplink's namespace, from a packet socket.

use crate::node::{
    netns::Netns,
    topology::{IMDS_V4, IMDS_V6},
};
use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// IPPROTO_UDP.
pub(super) const UDP: u8 = 17;
/// IPPROTO_TCP.
const TCP: u8 = 6;
/// `ETH_P_ALL`, include/uapi/linux/if_ether.h.
const ETH_P_ALL: u16 = 3;
/// Bytes of an Ethernet header without a tag.
const ETHERNET_HEADER: usize = 14;
/// Bytes of a VLAN tag (IEEE 802.1Q).
const VLAN_TAG: usize = 4;
/// Interval at which the thread checks whether to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Bytes of the kernel's buffer for unread packets: enough for 10,000 SYNs.
const BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Packets that are kept; further ones are dropped. A test fails at the first.
const PACKETS_MAX: usize = 100_000;

/// A packet to the IMDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// IANA protocol number (for IPv6: of the first header).
    pub protocol: u8,
    /// Destination port, if it is TCP or UDP and no later fragment.
    pub port: Option<u16>,
    /// TCP flags, if it is TCP.
    pub flags: Option<u8>,
}

/// A running capture.
#[derive(Debug)]
pub(super) struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

impl Capture {
    pub(super) fn start(uplink: &Netns) -> Result<Self> {
        let socket = uplink.enter(|| {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("open a packet socket (CAP_NET_RAW)")
        })?;
        socket.set_read_timeout(Some(STOP_CHECK))?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        let packets = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("capture".to_owned()).spawn({
            let (packets, stop) = (Arc::clone(&packets), Arc::clone(&stop));
            move || read(socket, &packets, &stop)
        })?;
        Ok(Self { packets, stop, thread: Some(thread) })
    }

    pub(super) fn packets(&self) -> Vec<Packet> {
        self.packets.lock().expect("no panic under this lock").clone()
    }

    pub(super) fn forget(&self) {
        self.packets.lock().expect("no panic under this lock").clear();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("the capture ended early: its counts are incomplete");
        }
    }
}

fn read(mut socket: Socket, packets: &Mutex<Vec<Packet>>, stop: &AtomicBool) -> Result<()> {
    let mut frame = vec![0; usize::from(u16::MAX)];
    while !stop.load(Ordering::Relaxed) {
        let length = match socket.read(&mut frame) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            // The interface of a node that is being removed.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENETDOWN as i32) => continue,
            Err(error) => return Err(error).context("read packets"),
        };
        let Some(packet) = parse(&frame[..length]) else { continue };
        let mut packets = packets.lock().expect("no panic under this lock");
        if packets.len() < PACKETS_MAX {
            packets.push(packet);
        }
    }
    Ok(())
}

/// Returns the packet in a frame if its destination is the IMDS. Looks under VLAN tags as well, because a receiver
/// removes any number of tags with VLAN id 0.
fn parse(frame: &[u8]) -> Option<Packet> {
    let mut header = ETHERNET_HEADER;
    loop {
        let ethertype = u16::from_be_bytes(frame.get(header - 2..header)?.try_into().ok()?);
        let packet = frame.get(header..)?;
        match ethertype {
            0x0800 => return parse_v4(packet),
            0x86dd => return parse_v6(packet),
            0x8100 | 0x88a8 => header += VLAN_TAG,
            _ => return None,
        }
    }
}

fn parse_v4(packet: &[u8]) -> Option<Packet> {
    let address =
        |at: usize| -> Option<Ipv4Addr> { Some(Ipv4Addr::from_octets(packet.get(at..at + 4)?.try_into().ok()?)) };
    if address(16)? != IMDS_V4 {
        return None;
    }
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let fragment_offset = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
    let transport = if fragment_offset == 0 { packet.get(header..) } else { None };
    Some(transport_of(address(12)?.into(), *packet.get(9)?, transport))
}

fn parse_v6(packet: &[u8]) -> Option<Packet> {
    let address =
        |at: usize| -> Option<Ipv6Addr> { Some(Ipv6Addr::from_octets(packet.get(at..at + 16)?.try_into().ok()?)) };
    if address(24)? != IMDS_V6 {
        return None;
    }
    Some(transport_of(address(8)?.into(), *packet.get(6)?, packet.get(40..)))
}

fn transport_of(source: IpAddr, protocol: u8, transport: Option<&[u8]>) -> Packet {
    let has_ports = protocol == TCP || protocol == UDP;
    let port = transport.filter(|_| has_ports).and_then(|bytes| bytes.get(2..4));
    let flags = transport.filter(|_| protocol == TCP).and_then(|bytes| bytes.get(13)).copied();
    Packet { source, protocol, port: port.map(|port| u16::from_be_bytes([port[0], port[1]])), flags }
}

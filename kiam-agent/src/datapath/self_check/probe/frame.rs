//! The packets of a probe. Their sender addresses are reserved as dummies, so that no host has them.

use crate::datapath::node::family::Family;
use anyhow::Context as _;
use etherparse::PacketBuilder;
use kiam_common::abi::{IMDS_PORT, IMDS_V4, IMDS_V6};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 7600, «IPv4 dummy address».
const SENDER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// RFC 9780, «Dummy IPv6 Prefix»: 100:0:0:1::/64.
const SENDER_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 1);
/// Source address of the frames: one that belongs to no manufacturer (IEEE 802, locally administered).
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Hop limit of the packets, which are not forwarded.
const HOP_LIMIT: u8 = 64;
/// Range of the sender's ports: wide enough that a port is practically never reused while the kernel still remembers
/// its last connection.
const SENDER_PORT_MIN: u16 = 10_000;
const SENDER_PORTS: u16 = 50_000;

/// Common fields of the frames of one probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    family: Family,
    to: [u8; 6],
    port: u16,
    sequence: u32,
}

/// TCP segment in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    /// Opens a connection.
    Syn,
    /// Ends a connection.
    Reset,
}

impl Frame {
    /// Creates the frame of a new probe to an interface. Port and sequence number are random, so that a pod cannot
    /// guess them and cause an answer that looks like that to the probe.
    pub(super) fn new(family: Family, to: [u8; 6]) -> anyhow::Result<Self> {
        let mut random = [0; 6];
        SystemRandom::new().fill(&mut random).ok().context("the kernel returns no random bytes")?;
        let [a, b, c, d, e, f] = random;
        let port = SENDER_PORT_MIN + u16::from_ne_bytes([e, f]) % SENDER_PORTS;
        Ok(Self { family, to, port, sequence: u32::from_ne_bytes([a, b, c, d]) })
    }

    /// Returns the family.
    pub(super) const fn family(self) -> Family {
        self.family
    }

    /// Returns the number that an answer acknowledges.
    pub(super) const fn acknowledgement(self) -> u32 {
        self.sequence.wrapping_add(1)
    }

    /// Returns the bytes of the frame.
    pub(super) fn bytes(self, segment: Segment) -> anyhow::Result<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2(SENDER_MAC, self.to);
        let ip = match self.family {
            Family::V4 => ethernet.ipv4(SENDER_V4.octets(), IMDS_V4, HOP_LIMIT),
            Family::V6 => ethernet.ipv6(SENDER_V6.octets(), IMDS_V6, HOP_LIMIT),
        };
        let packet = match segment {
            Segment::Syn => ip.tcp(self.port, IMDS_PORT, self.sequence, u16::MAX).syn(),
            Segment::Reset => ip.tcp(self.port, IMDS_PORT, self.acknowledgement(), 0).rst(),
        };
        let mut frame = Vec::with_capacity(packet.size(0));
        packet.write(&mut frame, &[]).context("writing a packet")?;
        Ok(frame)
    }
}

/// Returns the source address of a family's probes.
pub(super) fn sender(family: Family) -> IpAddr {
    match family {
        Family::V4 => SENDER_V4.into(),
        Family::V6 => SENDER_V6.into(),
    }
}

/// Returns the MAC address that belongs to [`sender`].
pub(super) const fn sender_mac() -> [u8; 6] {
    SENDER_MAC
}

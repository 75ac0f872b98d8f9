//! Packets that no socket would send: a SYN from an address that is not the pod's. For use in a thread that has entered
//! a pod's namespace.

use anyhow::{Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IPPROTO_RAW: the packet includes its own IP header.
const IPPROTO_RAW: i32 = 255;
/// IPPROTO_TCP.
const TCP: u8 = 6;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

/// Sends one TCP segment without data from any source address to the IMDS.
pub fn send_segment(source: SocketAddr, imds: IpAddr, port: u16, flags: u8) -> Result<()> {
    let (packet, domain) = match (source.ip(), imds) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (v4_packet(from, to, source.port(), port, flags), Domain::IPV4),
        (IpAddr::V6(from), IpAddr::V6(to)) => (v6_packet(from, to, source.port(), port, flags), Domain::IPV6),
        (from, to) => bail!("{from} and {to} are of different families"),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
    socket.send_to(&packet, &SockAddr::from(SocketAddr::new(imds, 0)))?;
    Ok(())
}

fn v4_packet(from: Ipv4Addr, to: Ipv4Addr, source_port: u16, port: u16, flags: u8) -> Vec<u8> {
    // Version and header length, type of service; the kernel sets length, identification and checksum (raw(7)).
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend([0, TCP, 0, TCP_HEADER as u8]);
    packet.extend(segment(&pseudo, source_port, port, flags));
    packet
}

fn v6_packet(from: Ipv6Addr, to: Ipv6Addr, source_port: u16, port: u16, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, TCP_HEADER as u8, TCP, 64];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend([0, 0, 0, TCP_HEADER as u8, 0, 0, 0, TCP]);
    packet.extend(segment(&pseudo, source_port, port, flags));
    packet
}

fn segment(pseudo_header: &[u8], source_port: u16, port: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::with_capacity(TCP_HEADER);
    segment.extend(source_port.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(1000u32.to_be_bytes());
    segment.extend(0u32.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(&[pseudo_header, &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// Computes the checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_over_a_whole_packet_is_zero() {
        let source = Ipv4Addr::new(10, 9, 0, 1);
        let packet = v4_packet(source, crate::node::topology::IMDS_V4, 1, 80, SYN);
        let mut pseudo = [source.octets(), crate::node::topology::IMDS_V4.octets()].concat();
        pseudo.extend([0, TCP, 0, 20]);
        assert_eq!(checksum(&[&pseudo, &packet[20..]].concat()), 0);
    }
}

//! A rule in the notation of iptables' command line. Supports the rules of kiam, kube2iam and the like: addresses,
//! interfaces, a TCP port, and DNAT or REDIRECT to one destination.

use super::layout::{Entry, Extension, Interface, Network, Target};
use crate::datapath::node::roles::PROBE;
use kiam_common::abi::IMDS_PORT;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// `struct xt_tcp` (include/uapi/linux/netfilter/xt_tcpudp.h); ports in host order.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tcp {
    source_ports: [u16; 2],
    destination_ports: [u16; 2],
    option: u8,
    flag_mask: u8,
    flag_values: u8,
    inverted: u8,
}

/// `struct nf_nat_ipv4_multi_range_compat` with its one range; ports in network order.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RangeV4 {
    ranges: u32,
    flags: u32,
    addresses: [[u8; 4]; 2],
    ports: [[u8; 2]; 2],
}

/// `struct nf_nat_range`, and the beginning of `nf_nat_range2`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Range {
    flags: u32,
    addresses: [[u8; 16]; 2],
    ports: [[u8; 2]; 2],
}

/// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
const HAS_ADDRESS: u32 = 1;
const HAS_PORT: u32 = 2;
const PROTOCOL_TCP: u16 = 6;
/// `XT_TCP_INV_DSTPT`.
const INVERTED_PORT: u8 = 2;

/// Returns the arguments after `-D CHAIN`; `None` if the rule has parts that are not supported here.
pub(super) fn of(entry: &Entry) -> Option<String> {
    if entry.other_inversions {
        return None;
    }
    let mut words = Vec::new();
    words.extend(network("-s", &entry.source)?);
    words.extend(network("-d", &entry.destination)?);
    words.extend(interface("-i", &entry.input));
    words.extend(interface("-o", &entry.output));
    words.extend(protocol(entry.protocol)?);
    for extension in &entry.matches {
        words.push(tcp(extension)?);
    }
    words.push(target(&entry.target)?);
    Some(words.join(" "))
}

/// Returns whether the rule has a condition that excludes the probe's SYN: another protocol, port or interface.
/// Conditions that are not supported here are ignored.
pub(super) fn excludes_probe(entry: &Entry) -> bool {
    let (protocol, inverted) = entry.protocol;
    let other_protocol = protocol != 0 && (protocol == PROTOCOL_TCP) == inverted;
    other_protocol || other_interface(&entry.input) || entry.matches.iter().any(other_port)
}

fn other_interface(interface: &Interface) -> bool {
    let is_it = match interface.name.strip_suffix('+') {
        Some(beginning) => PROBE.starts_with(beginning),
        None => interface.name == PROBE,
    };
    !interface.name.is_empty() && is_it == interface.inverted
}

fn other_port(extension: &Extension) -> bool {
    let Ok((tcp, _)) = Tcp::read_from_prefix(&extension.data) else { return false };
    let [first, last] = tcp.destination_ports;
    let is_it = (first..=last).contains(&IMDS_PORT);
    (extension.name == "tcp" && extension.revision == 0) && is_it == (tcp.inverted & INVERTED_PORT != 0)
}

/// Returns the arguments for a network. The outer `None`: the mask is not a prefix; the inner `None`: any address.
fn network(flag: &str, network: &Network) -> Option<Option<String>> {
    let (ones, zeros) = match network.mask {
        IpAddr::V4(mask) => (u32::from(mask).leading_ones(), u32::from(mask).trailing_zeros()),
        IpAddr::V6(mask) => (u128::from(mask).leading_ones(), u128::from(mask).trailing_zeros()),
    };
    let bits = if network.mask.is_ipv4() { 32 } else { 128 };
    if ones + zeros != bits {
        return None;
    }
    Some((ones > 0).then(|| format!("{}{flag} {}/{ones}", not(network.inverted), network.address)))
}

fn interface(flag: &str, interface: &Interface) -> Option<String> {
    (!interface.name.is_empty()).then(|| format!("{}{flag} {}", not(interface.inverted), interface.name))
}

fn protocol((number, inverted): (u16, bool)) -> Option<Option<String>> {
    match number {
        0 => Some(None),
        PROTOCOL_TCP => Some(Some(format!("{}-p tcp", not(inverted)))),
        _ => None,
    }
}

/// Returns `-m tcp --dport PORT`; `None` if there are other conditions.
fn tcp(extension: &Extension) -> Option<String> {
    let (tcp, _) = Tcp::read_from_prefix(&extension.data).ok()?;
    let plain = tcp.source_ports == [0, u16::MAX] && (tcp.option, tcp.flag_mask, tcp.flag_values) == (0, 0, 0);
    let [first, last] = tcp.destination_ports;
    (extension.name == "tcp" && extension.revision == 0 && plain && tcp.inverted == 0 && first == last)
        .then(|| format!("-m tcp --dport {first}"))
}

fn target(target: &Target) -> Option<String> {
    let Target::Extension(extension) = target else { return None };
    match (extension.name.as_str(), destination(extension)?) {
        ("DNAT", (Some(address), Some(port))) => {
            Some(format!("-j DNAT --to-destination {}", SocketAddr::new(address, port)))
        }
        ("DNAT", (Some(address), None)) => Some(format!("-j DNAT --to-destination {address}")),
        ("REDIRECT", (None, Some(port))) => Some(format!("-j REDIRECT --to-ports {port}")),
        ("REDIRECT", (None, None)) => Some("-j REDIRECT".to_owned()),
        _ => None,
    }
}

/// Returns the new destination: one address, one port, or both; `None` if it is a range or has other flags.
fn destination(target: &Extension) -> Option<(Option<IpAddr>, Option<u16>)> {
    let v4 = target.revision == 0 && target.data.len() == size_of::<RangeV4>().next_multiple_of(8);
    let (flags, [first, last], ports): (u32, [IpAddr; 2], _) = if v4 {
        let (range, _) = RangeV4::read_from_prefix(&target.data).ok()?;
        (range.flags, range.addresses.map(|octets| Ipv4Addr::from(octets).into()), range.ports)
    } else {
        let (range, _) = Range::read_from_prefix(&target.data).ok()?;
        (range.flags, range.addresses.map(union_address), range.ports)
    };
    let [first_port, last_port] = ports.map(u16::from_be_bytes);
    let one = flags & !(HAS_ADDRESS | HAS_PORT) == 0
        && (flags & HAS_ADDRESS == 0 || first == last)
        && (flags & HAS_PORT == 0 || first_port == last_port);
    one.then_some(((flags & HAS_ADDRESS != 0).then_some(first), (flags & HAS_PORT != 0).then_some(first_port)))
}

/// Returns the address in a `union nf_inet_addr`: an IPv4 address is in its first four bytes.
fn union_address(octets: [u8; 16]) -> IpAddr {
    match octets {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(octets).into(),
    }
}

const fn not(inverted: bool) -> &'static str {
    if inverted { "! " } else { "" }
}

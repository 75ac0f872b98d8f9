//! Parser of frames for the TC programs.
//!
//! Offsets are fixed because the programs are attached to Ethernet devices only, where the data starts at the Ethernet
//! header.

use aya_ebpf::{
    bindings::{
        bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Tuple4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Tuple6,
    },
    programs::TcContext,
};
use kiam_common::abi::{Address, IMDS_PORT, IMDS_V4, IMDS_V6, Reason, SLOT_V4, SLOT_V6};
use kiam_ebpf::{
    net::{
        ACK, ARP_TARGET, ETHERNET_LEN, IMDS_V4_WORD, IMDS_V6_WORDS, IPV4_LEN, IPV4_SOURCE, IPV6_DESTINATION, IPV6_LEN,
        IPV6_SOURCE, SYN, TCP, TCP_FLAGS, VLAN_TAG_LEN, ethertype,
    },
    source::{impossible_v4, impossible_v6},
};

/// Number of VLAN tags that are parsed. A receiver removes any number of tags with VLAN 0, so a frame with more is
/// treated as one to the IMDS: no legitimate frame has so many.
const VLAN_TAGS_MAX: usize = 4;

/// Classes of packets.
pub enum Packet {
    /// Neither to the IMDS nor from it.
    Other,
    /// With the IMDS as its source address.
    FromImds(Destination),
    /// To the IMDS, to be dropped.
    Refused(Reason),
    /// TCP to port 80 of the IMDS.
    Http(HttpPacket),
}

/// Destination address of a packet, in network order.
pub enum Destination {
    V4(u32),
    V6([u32; 4]),
}

/// A TCP packet to port 80 of the IMDS.
pub struct HttpPacket {
    /// Argument of the kernel's socket lookup.
    pub tuple: bpf_sock_tuple,
    /// Bytes of `tuple` that the lookup reads; they determine the address family.
    pub tuple_len: u32,
    /// The sender's address.
    pub source: Address,
    /// The sender's port, in network order.
    pub port: u16,
    /// True if the packet opens a connection.
    pub syn: bool,
    /// Listener slot for the address family.
    pub slot: u32,
}

/// Classifies a packet, reading as little of it as possible: one load for a packet that is neither to
/// the IMDS nor from it.
#[inline(always)]
pub fn classify(ctx: &TcContext) -> Packet {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let skb = unsafe { &*ctx.skb.skb };
    // The kernel moves the outer VLAN tag out of the data; `protocol` is then the EtherType that follows it.
    let tagged = skb.vlan_present != 0;
    match skb.protocol as u16 {
        ethertype::IPV4 => match ends_v4(ctx, ETHERNET_LEN) {
            Ends::ToImds => refuse_tagged(tagged).unwrap_or_else(|| ipv4(ctx)),
            Ends::FromImds(to) => Packet::FromImds(Destination::V4(to)),
            Ends::Others => Packet::Other,
        },
        ethertype::IPV6 => match ends_v6(ctx, ETHERNET_LEN) {
            Ends::ToImds => refuse_tagged(tagged).unwrap_or_else(|| ipv6(ctx)),
            Ends::FromImds(to) => Packet::FromImds(Destination::V6(halves(to))),
            Ends::Others => Packet::Other,
        },
        ethertype::VLAN | ethertype::QINQ => still_tagged(ctx),
        _ => Packet::Other,
    }
}

/// Refuses a packet with a VLAN tag: a VLAN device would deliver it instead of the pod interface.
#[inline(always)]
fn refuse_tagged(tagged: bool) -> Option<Packet> {
    tagged.then_some(Packet::Refused(Reason::Malformed))
}

/// Classifies a frame with a VLAN tag in its data, which is its second tag. A frame with a third tag is refused: the
/// receiver removes any number of tags with VLAN 0 and delivers the packet under them, and no legitimate pod sends
/// that.
#[inline(always)]
fn still_tagged(ctx: &TcContext) -> Packet {
    let Ok(inner) = ctx.load::<u16>(ETHERNET_LEN + VLAN_TAG_LEN - size_of::<u16>()) else { return Packet::Other };
    let refused = match inner {
        ethertype::IPV4 => !matches!(ends_v4(ctx, ETHERNET_LEN + VLAN_TAG_LEN), Ends::Others),
        ethertype::IPV6 => !matches!(ends_v6(ctx, ETHERNET_LEN + VLAN_TAG_LEN), Ends::Others),
        ethertype::VLAN | ethertype::QINQ => true,
        _ => false,
    };
    if refused { Packet::Refused(Reason::Malformed) } else { Packet::Other }
}

/// Addresses of a packet. If both are the IMDS, the destination counts.
enum Ends<A> {
    /// Neither is the IMDS.
    Others,
    /// The source is the IMDS; the value is the destination.
    FromImds(A),
    /// The destination is the IMDS.
    ToImds,
}

#[inline(always)]
fn ends_v4(ctx: &TcContext, header: usize) -> Ends<u32> {
    match ctx.load::<[u32; 2]>(header + IPV4_SOURCE) {
        Ok([_, IMDS_V4_WORD]) => Ends::ToImds,
        Ok([IMDS_V4_WORD, to]) => Ends::FromImds(to),
        _ => Ends::Others,
    }
}

#[inline(always)]
fn ends_v6(ctx: &TcContext, header: usize) -> Ends<[u64; 2]> {
    const IMDS: [u64; 2] = words64(IMDS_V6);
    match ctx.load::<[[u64; 2]; 2]>(header + IPV6_SOURCE) {
        Ok([_, IMDS]) => Ends::ToImds,
        Ok([IMDS, to]) => Ends::FromImds(to),
        _ => Ends::Others,
    }
}

#[inline(always)]
fn ipv4(ctx: &TcContext) -> Packet {
    let Ok(h) = ctx.load::<[u8; IPV4_LEN]>(ETHERNET_LEN) else { return Packet::Refused(Reason::Malformed) };
    let header_len = usize::from(h[0] & 0x0f) * 4;
    // The flag for more fragments, or an offset: the ports may be in another fragment.
    let fragment = (h[6] & 0x3f) != 0 || h[7] != 0;
    if header_len < IPV4_LEN || fragment {
        return Packet::Refused(Reason::Malformed);
    }
    if h[9] != TCP {
        return Packet::Refused(Reason::NotHttp);
    }
    let source = [h[12], h[13], h[14], h[15]];
    if impossible_v4(source) {
        return Packet::Refused(Reason::BadSource);
    }
    let Segment { port, syn } = match segment(ctx, ETHERNET_LEN + header_len) {
        Ok(segment) => segment,
        Err(reason) => return Packet::Refused(reason),
    };
    let (sport, dport) = (port, IMDS_PORT.to_be());
    let ipv4 = Tuple4 { saddr: u32::from_ne_bytes(source), daddr: IMDS_V4_WORD, sport, dport };
    // The larger member is written first: without CAP_PERFMON the verifier rejects reading stack that was not written.
    let ipv6 = Tuple6 { saddr: [0; 4], daddr: [0; 4], sport: 0, dport: 0 };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } };
    tuple.__bindgen_anon_1.ipv4 = ipv4;
    let source = Address::from_v4(source);
    Packet::Http(HttpPacket { tuple, tuple_len: size_of::<Tuple4>() as u32, source, port, syn, slot: SLOT_V4 })
}

#[inline(always)]
fn ipv6(ctx: &TcContext) -> Packet {
    let Ok(h) = ctx.load::<[u8; IPV6_DESTINATION]>(ETHERNET_LEN) else { return Packet::Refused(Reason::Malformed) };
    // Extension headers are not parsed: no client of the IMDS sends one.
    if h[6] != TCP {
        return Packet::Refused(Reason::NotHttp);
    }
    let Ok(source) = ctx.load::<[u8; 16]>(ETHERNET_LEN + IPV6_SOURCE) else {
        return Packet::Refused(Reason::Malformed);
    };
    if impossible_v6(source) {
        return Packet::Refused(Reason::BadSource);
    }
    let Segment { port, syn } = match segment(ctx, ETHERNET_LEN + IPV6_LEN) {
        Ok(segment) => segment,
        Err(reason) => return Packet::Refused(reason),
    };
    let (sport, dport) = (port, IMDS_PORT.to_be());
    let ipv6 = Tuple6 { saddr: words32(source), daddr: IMDS_V6_WORDS, sport, dport };
    Packet::Http(HttpPacket {
        tuple: bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } },
        tuple_len: size_of::<Tuple6>() as u32,
        source: Address { octets: source },
        port,
        syn,
        slot: SLOT_V6,
    })
}

/// The relevant fields of a TCP header.
struct Segment {
    /// The sender's port, in network order.
    port: u16,
    /// True if the packet opens a connection.
    syn: bool,
}

#[inline(always)]
fn segment(ctx: &TcContext, tcp: usize) -> Result<Segment, Reason> {
    let Ok(h) = ctx.load::<[u8; TCP_FLAGS + 1]>(tcp) else { return Err(Reason::Malformed) };
    if [h[2], h[3]] != IMDS_PORT.to_be_bytes() {
        return Err(Reason::NotHttp);
    }
    Ok(Segment { port: u16::from_ne_bytes([h[0], h[1]]), syn: h[TCP_FLAGS] & (SYN | ACK) == SYN })
}

/// Returns the destination MAC address of a frame.
#[inline(always)]
pub fn destination_mac(ctx: &TcContext) -> Option<[u8; 6]> {
    ctx.load(0).ok()
}

/// Returns whether a frame carries a packet of any kind to the IMDS, or is an ARP packet for the IMDS. It parses the
/// bytes, because a packet socket can set a wrong `skb->protocol`. All of the node's traffic is checked, most of it by
/// one load.
#[inline(always)]
pub fn concerns_imds(ctx: &TcContext) -> bool {
    let mut header = ETHERNET_LEN;
    while header <= ETHERNET_LEN + VLAN_TAGS_MAX * VLAN_TAG_LEN {
        // The EtherType and as many bytes as the shortest header has: no packet to the IMDS is shorter.
        let Ok(h) = ctx.load::<[u16; 1 + IPV4_LEN / 2]>(header - size_of::<u16>()) else { return false };
        match h[0] {
            ethertype::VLAN | ethertype::QINQ => header += VLAN_TAG_LEN,
            ethertype::IPV4 => return [h[9], h[10]] == const { words16(IMDS_V4) },
            ethertype::IPV6 => return matches!(ends_v6(ctx, header), Ends::ToImds),
            ethertype::ARP => return ctx.load(header + ARP_TARGET) == Ok(IMDS_V4),
            _ => return false,
        }
    }
    true
}

#[inline(always)]
const fn words32(octets: [u8; 16]) -> [u32; 4] {
    // SAFETY: both are 16 bytes for which every bit pattern is valid.
    unsafe { core::mem::transmute(octets) }
}

#[inline(always)]
const fn words16([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

#[inline(always)]
const fn words64(octets: [u8; 16]) -> [u64; 2] {
    // SAFETY: both are 16 bytes for which every bit pattern is valid.
    unsafe { core::mem::transmute(octets) }
}

#[inline(always)]
const fn halves(words: [u64; 2]) -> [u32; 4] {
    // SAFETY: as above.
    unsafe { core::mem::transmute(words) }
}

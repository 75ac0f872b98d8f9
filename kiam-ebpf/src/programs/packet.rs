//! From the bytes of a frame to what the TC program must know of it.
//!
//! Offsets are fixed because the program is attached to Ethernet devices only, and at TC ingress the data starts at the
//! Ethernet header.

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

/// Tags that are looked under. A receiver takes off as many as there are that name no VLAN, so a frame with more is taken
/// for one that concerns M: there is no honest one.
const TAGS_MAX: usize = 4;

/// What a packet is to us.
pub enum Packet {
    /// Neither addressed to M nor from it.
    Other,
    /// Says that it comes from M.
    FromImds(Destination),
    /// Addressed to M, and to be dropped.
    Refused(Reason),
    /// TCP to M:80.
    Http(HttpPacket),
}

/// Where a packet goes, in network order.
pub enum Destination {
    V4(u32),
    V6([u32; 4]),
}

/// The connection that a packet belongs to.
pub struct HttpPacket {
    /// For the kernel's socket lookup.
    pub tuple: bpf_sock_tuple,
    /// Bytes of `tuple` that the lookup reads: they tell the family.
    pub tuple_len: u32,
    /// Who sent the packet.
    pub source: Address,
    /// The sender's port, in network order.
    pub port: u16,
    /// The packet opens a connection.
    pub syn: bool,
    /// The slot of the listener of this family.
    pub slot: u32,
}

/// Reads as much of the packet as it takes to know what it is; for a packet that is not to M that is one load.
#[inline(always)]
pub fn classify(ctx: &TcContext) -> Packet {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let skb = unsafe { &*ctx.skb.skb };
    // The kernel moves the outer VLAN tag out of the data, and `protocol` is then what follows it.
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

/// A pod's interface carries no VLANs of ours: a tagged packet would be delivered by another device than ours.
#[inline(always)]
fn refuse_tagged(tagged: bool) -> Option<Packet> {
    tagged.then_some(Packet::Refused(Reason::Malformed))
}

/// A frame with a tag in its data, the second one of a frame. Nobody behind a pod's interface sends a third: the receiver
/// takes off as many as there are that name no VLAN, and delivers what is under them.
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

/// Which end of a packet M is. Of one that says that it is both, the destination counts.
enum Ends<A> {
    Others,
    /// And goes to this address.
    FromImds(A),
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
    // More fragments to come, or an offset: the ports may be elsewhere.
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
    // The larger member first: the verifier lets nobody without CAP_PERFMON read a stack that was not written.
    let ipv6 = Tuple6 { saddr: [0; 4], daddr: [0; 4], sport: 0, dport: 0 };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } };
    tuple.__bindgen_anon_1.ipv4 = ipv4;
    let source = Address::from_v4(source);
    Packet::Http(HttpPacket { tuple, tuple_len: size_of::<Tuple4>() as u32, source, port, syn, slot: SLOT_V4 })
}

#[inline(always)]
fn ipv6(ctx: &TcContext) -> Packet {
    let Ok(h) = ctx.load::<[u8; IPV6_DESTINATION]>(ETHERNET_LEN) else { return Packet::Refused(Reason::Malformed) };
    // An extension header is not walked: no client of M sends one.
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

/// What matters of a TCP header.
struct Segment {
    /// The sender's, in network order.
    port: u16,
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

/// The station that a frame is addressed to.
#[inline(always)]
pub fn destination_mac(ctx: &TcContext) -> Option<[u8; 6]> {
    ctx.load(0).ok()
}

/// Whether a frame carries a packet to M of whatever kind, or asks for M's MAC address. By its bytes: what a packet
/// socket says of the protocol need not be true. All of the node's traffic comes here: for most of it that is one load.
#[inline(always)]
pub fn concerns_imds(ctx: &TcContext) -> bool {
    let mut header = ETHERNET_LEN;
    while header <= ETHERNET_LEN + TAGS_MAX * VLAN_TAG_LEN {
        // The type, and what is as long as the shortest header: nothing to M is shorter.
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

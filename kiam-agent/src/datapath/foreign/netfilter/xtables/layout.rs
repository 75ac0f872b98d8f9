//! The kernel's layout of a table of x_tables: `ipt_entry`, `ip6t_entry` and the structures after them
//! (include/uapi/linux/netfilter/x_tables.h and other headers there). It is part of the kernel's interface to user
//! space, and has not changed since Linux 2.6.

use crate::datapath::{foreign::netfilter::Destination, node::family::Family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the name of a table and of an interface, including the terminating zero.
const TABLE_NAME_LEN: usize = 32;
const INTERFACE_LEN: usize = 16;
/// Bytes of `ipt_get_entries` before its entries: name, size, and padding.
pub(super) const GET_ENTRIES_HEAD_LEN: usize = 40;
/// Bytes of `xt_entry_match` and `xt_entry_target` before their data: size, name, revision.
const EXTENSION_HEAD_LEN: usize = 32;

/// `struct ipt_getinfo`, the same for IPv6.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Info {
    pub(super) name: [u8; TABLE_NAME_LEN],
    pub(super) valid_hooks: u32,
    pub(super) hook_entry: [u32; 5],
    pub(super) underflow: [u32; 5],
    pub(super) num_entries: u32,
    pub(super) size: u32,
}

impl Info {
    /// Returns the query for a table's info.
    pub(super) fn of(table: &str) -> Self {
        Self { name: name(table), valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], num_entries: 0, size: 0 }
    }
}

/// Returns the query for a table's entries, with space for them.
pub(super) fn get_entries(table: &str, size: u32) -> Vec<u8> {
    let mut value = name(table).to_vec();
    value.extend(size.to_ne_bytes());
    value.resize(GET_ENTRIES_HEAD_LEN + size as usize, 0);
    value
}

/// Returns a name padded with zeros.
pub(super) fn name(text: &str) -> [u8; TABLE_NAME_LEN] {
    let mut name = [0; TABLE_NAME_LEN];
    for (to, from) in name.iter_mut().take(TABLE_NAME_LEN - 1).zip(text.bytes()) {
        *to = from;
    }
    name
}

/// `struct ipt_entry`, without its counters.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EntryV4 {
    source: [u8; 4],
    destination: [u8; 4],
    source_mask: [u8; 4],
    destination_mask: [u8; 4],
    interfaces: Interfaces,
    protocol: u16,
    _flags: u8,
    inverted: u8,
    tail: Tail,
}

/// `struct ip6t_entry`, without its counters.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EntryV6 {
    source: [u8; 16],
    destination: [u8; 16],
    source_mask: [u8; 16],
    destination_mask: [u8; 16],
    interfaces: Interfaces,
    protocol: u16,
    _tos: u8,
    _flags: u8,
    inverted: u8,
    _padding: [u8; 3],
    tail: Tail,
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Interfaces {
    input: [u8; INTERFACE_LEN],
    output: [u8; INTERFACE_LEN],
    _input_mask: [u8; INTERFACE_LEN],
    _output_mask: [u8; INTERFACE_LEN],
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Tail {
    _nfcache: u32,
    target_offset: u16,
    next_offset: u16,
    _comefrom: u32,
}

// With the counters, which are aligned to eight bytes: sizeof(struct ipt_entry) and sizeof(struct ip6t_entry).
const ENTRY_V4_LEN: usize = size_of::<EntryV4>().next_multiple_of(8) + 16;
const ENTRY_V6_LEN: usize = size_of::<EntryV6>().next_multiple_of(8) + 16;
const _: () = assert!(ENTRY_V4_LEN == 112 && ENTRY_V6_LEN == 168 && size_of::<Info>() == 84);

/// A rule, a chain's policy, or a chain's head.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) source: Network,
    pub(super) destination: Network,
    pub(super) input: Interface,
    pub(super) output: Interface,
    /// Number of the protocol, 0 for all; true if it is inverted.
    pub(super) protocol: (u16, bool),
    /// True if there are inversions that are not supported here.
    pub(super) other_inversions: bool,
    pub(super) matches: Vec<Extension>,
    pub(super) target: Target,
    /// Bytes from the entry's beginning to the target's data.
    pub(super) target_data: usize,
    /// Bytes until the next entry.
    pub(super) len: u16,
}

/// A match or a target with its data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) revision: u8,
    pub(super) data: Vec<u8>,
}

/// Target of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A verdict below zero, or the offset of a chain.
    Standard(i32),
    /// The head of a chain, which is not a rule.
    ChainHead(String),
    /// The target of a module.
    Extension(Extension),
}

/// A network address with a mask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) address: IpAddr,
    pub(super) mask: IpAddr,
    pub(super) inverted: bool,
}

/// An interface name in the notation of iptables: a prefix ends with `+`; empty for any interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) inverted: bool,
}

/// `IPT_INV_…`: via-in, via-out, tos, source, destination, fragment, protocol.
const INVERTED_IN: u8 = 0x01;
const INVERTED_OUT: u8 = 0x02;
const INVERTED_SOURCE: u8 = 0x08;
const INVERTED_DESTINATION: u8 = 0x10;
const INVERTED_PROTOCOL: u8 = 0x40;
const INVERTED_OTHERS: u8 = 0x04 | 0x20;

impl Entry {
    /// Parses the first entry of the bytes.
    pub(super) fn parse(family: Family, bytes: &[u8]) -> Option<Self> {
        match family {
            Family::V4 => {
                let (entry, _) = EntryV4::read_from_prefix(bytes).ok()?;
                let networks = [(entry.source, entry.source_mask), (entry.destination, entry.destination_mask)]
                    .map(|(address, mask)| (Ipv4Addr::from(address).into(), Ipv4Addr::from(mask).into()));
                Self::new(bytes, ENTRY_V4_LEN, networks, &entry.interfaces, entry.protocol, entry.inverted, &entry.tail)
            }
            Family::V6 => {
                let (entry, _) = EntryV6::read_from_prefix(bytes).ok()?;
                let networks = [(entry.source, entry.source_mask), (entry.destination, entry.destination_mask)]
                    .map(|(address, mask)| (Ipv6Addr::from(address).into(), Ipv6Addr::from(mask).into()));
                Self::new(bytes, ENTRY_V6_LEN, networks, &entry.interfaces, entry.protocol, entry.inverted, &entry.tail)
            }
        }
    }

    fn new(
        bytes: &[u8],
        head: usize,
        [source, destination]: [(IpAddr, IpAddr); 2],
        interfaces: &Interfaces,
        protocol: u16,
        inverted: u8,
        tail: &Tail,
    ) -> Option<Self> {
        let network = |(address, mask), flag| Network { address, mask, inverted: inverted & flag != 0 };
        let target_offset = usize::from(tail.target_offset);
        let target = bytes.get(target_offset..usize::from(tail.next_offset))?;
        Some(Self {
            source: network(source, INVERTED_SOURCE),
            destination: network(destination, INVERTED_DESTINATION),
            input: Interface { name: text(&interfaces.input), inverted: inverted & INVERTED_IN != 0 },
            output: Interface { name: text(&interfaces.output), inverted: inverted & INVERTED_OUT != 0 },
            protocol: (protocol, inverted & INVERTED_PROTOCOL != 0),
            other_inversions: inverted & INVERTED_OTHERS != 0,
            matches: extensions(bytes.get(head..target_offset)?)?,
            target: Target::new(extension(target)?)?,
            target_data: target_offset + EXTENSION_HEAD_LEN,
            len: tail.next_offset,
        })
    }
}

impl Network {
    /// Returns the destinations that it selects, with regard to one address.
    pub(super) fn covers(&self, address: IpAddr) -> Destination {
        let inside = match (self.address, self.mask, address) {
            (IpAddr::V4(network), IpAddr::V4(mask), IpAddr::V4(address)) => address & mask == network & mask,
            (IpAddr::V6(network), IpAddr::V6(mask), IpAddr::V6(address)) => address & mask == network & mask,
            _ => return Destination::Elsewhere,
        };
        match (inside, self.inverted) {
            _ if self.mask.is_unspecified() => Destination::Any,
            (true, false) => Destination::Imds,
            (false, true) => Destination::Any,
            _ => Destination::Elsewhere,
        }
    }
}

impl Target {
    fn new(extension: Extension) -> Option<Self> {
        Some(match extension.name.as_str() {
            "" => Self::Standard(i32::from_ne_bytes(extension.data.first_chunk().copied()?)),
            "ERROR" => Self::ChainHead(text(&extension.data)),
            _ => Self::Extension(extension),
        })
    }
}

fn extensions(mut bytes: &[u8]) -> Option<Vec<Extension>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16::from_ne_bytes(bytes.first_chunk().copied()?));
        // At least the length of the head, so that the loop ends.
        let this = bytes.get(..len.max(EXTENSION_HEAD_LEN))?;
        found.push(extension(this)?);
        bytes = bytes.get(this.len()..)?;
    }
    Some(found)
}

/// Parses `u16 size; char name[29]; u8 revision; data`.
fn extension(bytes: &[u8]) -> Option<Extension> {
    let (head, data) = bytes.split_at_checked(EXTENSION_HEAD_LEN)?;
    let [_, _, name @ .., revision] = head else { return None };
    Some(Extension { name: text(name), revision: *revision, data: data.to_vec() })
}

/// Returns the text up to the first zero.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

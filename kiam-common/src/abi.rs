//! What the eBPF programs and the agent must agree on: addresses, names, map layouts and their bounds.
//!
//! A change of a layout here changes [`LAYOUT`], and with it the folder of the pins, so that an agent never opens
//! maps of another shape.

#[cfg(feature = "user")]
mod pod;

/// The instance metadata service over IPv4 (AWS: "Instance metadata and user data").
pub const IMDS_V4: [u8; 4] = [169, 254, 169, 254];
/// The instance metadata service over IPv6, `fd00:ec2::254` (AWS: "Instance metadata and user data").
pub const IMDS_V6: [u8; 16] = [0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54];
/// The only port of the metadata service that is served, in host order.
pub const IMDS_PORT: u16 = 80;

/// Version of the map layouts, and the name of the folder of the pins below `kiam` in the bpffs.
pub const LAYOUT: &str = "v1";

/// TC ingress program of every matched interface.
pub const PROG_TC_INGRESS: &str = "kiam_tc_ingress";
/// `sk_lookup` program of the node's network namespace.
pub const PROG_SK_LOOKUP: &str = "kiam_sk_lookup";

/// SOCKMAP of the agent's listening sockets, one slot a family ([`SLOT_V4`], [`SLOT_V6`]).
pub const MAP_LISTENERS: &str = "kiam_listeners";
/// Per-CPU hash, interface index to [`Counters`]: the interfaces that the TC program is attached to.
pub const MAP_INTERFACES: &str = "kiam_interfaces";
/// Hash of the node's own addresses ([`Address`]): no pod can own one of them.
pub const MAP_NODE_ADDRS: &str = "kiam_node_addrs";
/// Per-CPU array of one [`Counters`]: packets to M from interfaces without the TC program, seen by the backstop.
pub const MAP_STRAYS: &str = "kiam_strays";

/// Slot of the IPv4 listener in [`MAP_LISTENERS`].
pub const SLOT_V4: u32 = 0;
/// Slot of the IPv6 listener in [`MAP_LISTENERS`].
pub const SLOT_V6: u32 = 1;
/// Slots in [`MAP_LISTENERS`].
pub const SLOTS: u32 = 2;

/// Most interfaces that can be attached to at one time: ten times the pods of the largest EC2 node.
pub const MAX_INTERFACES: u32 = 8192;
/// Most addresses of the node that are known: a node with kube-proxy in IPVS mode carries one for each Service.
pub const MAX_NODE_ADDRS: u32 = 65_536;

/// An IP address as it lies in a packet; IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Address {
    /// Bytes in network order.
    pub octets: [u8; 16],
}

impl Address {
    /// The v4-mapped form of an IPv4 address.
    #[must_use]
    #[inline]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        let [a, b, c, d] = v4;
        Self { octets: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] }
    }
}

/// What became of a packet to M. The discriminant is the index into [`Counters::packets`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// Handed to the agent's listener: a new connection, or a packet of one that the node doesn't know (reset there).
    Listener = 0,
    /// Handed to the socket that it belongs to: established, half-open or in TIME_WAIT.
    Connection = 1,
    /// Dropped: not TCP (an IPv6 extension header included), or not to port 80.
    NotHttp = 2,
    /// Dropped: a fragment, a bad header length, a VLAN tag, or cut short.
    Malformed = 3,
    /// Dropped: from an address that no pod can own.
    BadSource = 4,
    /// Dropped: no agent listens.
    NoListener = 5,
    /// Dropped: the kernel refused the assignment.
    NotAssigned = 6,
    /// Dropped by the backstop: the packet came by an interface without the TC program.
    Unattached = 7,
}

impl Reason {
    /// All reasons, in the order of their indexes.
    pub const ALL: [Self; REASONS] = [
        Self::Listener,
        Self::Connection,
        Self::NotHttp,
        Self::Malformed,
        Self::BadSource,
        Self::NoListener,
        Self::NotAssigned,
        Self::Unattached,
    ];

    /// The reason's name in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::NotHttp => "not-http",
            Self::Malformed => "malformed",
            Self::BadSource => "bad-source",
            Self::NoListener => "no-listener",
            Self::NotAssigned => "not-assigned",
            Self::Unattached => "unattached",
        }
    }

    /// Whether the packet was dropped.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::Listener | Self::Connection)
    }
}

/// Number of reasons.
pub const REASONS: usize = 8;

/// Packets to M by [`Reason`], on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Indexed by `Reason as usize`.
    pub packets: [u64; REASONS],
}

// The kernel copies these bytes as they lie: no padding, no surprise.
const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 1);
const _: () = assert!(size_of::<Counters>() == 8 * REASONS && align_of::<Counters>() == 8);
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const _: () = {
    // `bpftool` shows at most 15 characters of a name (`BPF_OBJ_NAME_LEN`, include/uapi/linux/bpf.h).
    let names = [PROG_TC_INGRESS, PROG_SK_LOOKUP, MAP_LISTENERS, MAP_INTERFACES, MAP_NODE_ADDRS, MAP_STRAYS];
    let mut index = 0;
    while index < names.len() {
        assert!(names[index].len() <= 15);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_indexes() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }
}

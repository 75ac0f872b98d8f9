//! Connection records: evidence of the socket that opened a connection. The program that sees the first packet writes
//! the record, the agent reads it when it accepts the connection.

/// IP address in network order; IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Address {
    /// The bytes of the address.
    pub octets: [u8; 16],
}

impl Address {
    /// Returns the v4-mapped form of an IPv4 address.
    #[must_use]
    #[inline]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        let [a, b, c, d] = v4;
        Self { octets: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] }
    }
}

/// Key of a connection record: the client's end of the connection, and where it reached the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub address: Address,
    /// Index of the interface at which the record was written: a pod's veth or a bridge port; [`BY_HOOK_NODE`] or
    /// [`BY_HOOK_POD`] for the cgroup hooks.
    pub interface: u32,
    /// The client's port, in network order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// [`FlowKey::interface`] of a connection that a cgroup hook redirected in a pod's own network namespace.
pub const BY_HOOK_POD: u32 = 0;
/// [`FlowKey::interface`] of a connection that a cgroup hook redirected in the node's network namespace: the index of
/// `lo` there (`LOOPBACK_IFINDEX`, include/net/flow.h), which never has the TC program.
pub const BY_HOOK_NODE: u32 = 1;

/// Connection record: the socket that opened the connection. Cgroup identifiers are those of the v2 hierarchy
/// (`cgroup_id()`, the inode number of the cgroup's folder); 0 if it is missing or unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Flow {
    /// Cgroup of the socket.
    pub cgroup: u64,
    /// The ancestors of that cgroup from kubepods down, three levels: the pod is the second (guaranteed) or the third
    /// (burstable and best effort). Zeros if the cgroup is not below kubepods.
    pub ancestors: [u64; 3],
    /// Cookie of the socket (`sock_gen_cookie`).
    pub cookie: u64,
    /// Time of writing, in nanoseconds of `CLOCK_MONOTONIC`.
    pub noted_ns: u64,
    /// Owner, against which the record counts: the interface, or for the hooks the pod ([`OWNER_IS_POD`]).
    pub owner: u64,
    /// Index of the record's place in the owner's ring.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// Bit of [`Flow::owner`] that marks the identifier of a pod's cgroup, which could equal an interface index.
pub const OWNER_IS_POD: u64 = 1 << 63;

/// Key of a part of an owner's ring, which bounds the owner's records. The ring has parts so that the places of
/// successive records are adjacent, which keeps them in the CPU's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct RingPart {
    /// [`Flow::owner`].
    pub owner: u64,
    /// [`Flow::slot`] divided by [`PLACES_PER_PART`].
    pub number: u32,
    /// Zero.
    pub pad: u32,
}

/// Number of places in one part of a ring.
pub const PLACES_PER_PART: u32 = 16;

/// Keys of the records that occupy the places of a part, or did: a record that was read leaves its key here.
pub type Places = [FlowKey; PLACES_PER_PART as usize];

/// The kernel's lock for a map value, found by the name of its type (`btf_find_spin_lock`, kernel/bpf/btf.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    /// State of the lock, private to the kernel.
    pub val: u32,
}

/// Ring of an owner's connection records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Ring {
    /// Held while `next` is read and incremented, so that CPUs never give two records the same place.
    pub lock: bpf_spin_lock,
    /// Number of the owner's next record.
    pub next: u32,
}

/// Maximum number of unread records of one owner; a further record replaces the oldest. A record is read when its
/// connection is accepted, so these are half-open connections.
pub const FLOWS_PER_OWNER: u32 = 1024;
/// Maximum number of records: 256 owners at their bound. Each takes 192 bytes (the sizes asserted below plus 48 for the
/// kernel's `struct htab_elem`, rounded up to the next size of its allocator) and 16 for a bucket: 52 MiB when full.
pub const MAX_FLOWS: u32 = 256 * FLOWS_PER_OWNER;
/// Maximum number of ring parts: 1,024 owners that have used a whole ring since they last had no record. Each takes 512
/// bytes, by the same calculation, and 16 for a bucket: 33 MiB when full.
pub const MAX_RING_PARTS: u32 = 1024 * FLOWS_PER_OWNER / PLACES_PER_PART;
/// Maximum number of owners with a ring: [`super::MAX_INTERFACES`] and as many pods.
pub const MAX_OWNERS: u32 = 2 * super::MAX_INTERFACES;

// The kernel copies values and compares keys byte by byte, so there must be no padding.
const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 1);
const _: () = assert!(size_of::<FlowKey>() == 24);
const _: () = assert!(size_of::<Flow>() == 64);
const _: () = assert!(size_of::<RingPart>() == 16 && FLOWS_PER_OWNER.is_multiple_of(PLACES_PER_PART));
const _: () = assert!(size_of::<Ring>() == 8);

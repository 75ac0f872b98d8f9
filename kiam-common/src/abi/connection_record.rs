//! Who opened a connection: noted by the program that saw its first packet, read by the agent when it accepts it.

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

/// The client's end of a connection, and where the node met it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub address: Address,
    /// The interface whose program wrote the record: a pod's veth, or the port of a bridge; [`BY_HOOK_NODE`] and
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

/// What the kernel knew of the socket that opened a connection. Identifiers of cgroups are those of the v2 hierarchy
/// (`cgroup_id()`, the inode number of the cgroup's folder); 0: none, or not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Flow {
    /// The socket's own cgroup.
    pub cgroup: u64,
    /// Of its ancestors the kubepods cgroup and the two below it: the pod is the second (guaranteed) or the third
    /// (burstable and best effort). Zeros when it is not below kubepods.
    pub ancestors: [u64; 3],
    /// The socket's cookie (`sock_gen_cookie`).
    pub cookie: u64,
    /// When it was noted: nanoseconds of `CLOCK_MONOTONIC`.
    pub noted_ns: u64,
    /// Whose bound it counts against: the interface, or the pod for the hooks ([`OWNER_IS_POD`]).
    pub owner: u64,
    /// Its place in the owner's ring.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// In [`Flow::owner`]: the rest is the identifier of a pod's cgroup, which could be an interface's index as well.
pub const OWNER_IS_POD: u64 = 1 << 63;

/// A part of an owner's ring of records, so that each owner has a bound of its own. In parts, because records that are
/// noted one after another then have their places side by side, which a processor has in its cache.
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

/// Records whose places are in one part of a ring.
pub const PLACES_PER_PART: u32 = 16;

/// The records that have the places of a part, or had them: a record that was read leaves its key here.
pub type Places = [FlowKey; PLACES_PER_PART as usize];

/// The kernel's lock for a value of a map. It is found by its name (`btf_find_spin_lock`, kernel/bpf/btf.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    /// The kernel's.
    pub val: u32,
}

/// The number of an owner's next record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Ring {
    /// Held while the number is read and raised: each record has a place of its own, however many processors meet here.
    pub lock: bpf_spin_lock,
    /// The number.
    pub next: u32,
}

/// Most records of one owner that are not read yet: the oldest gives way. A record is read when its connection is
/// accepted, so these are half-open connections.
pub const FLOWS_PER_OWNER: u32 = 1024;
/// Most records altogether: 256 owners at their bound. Each takes 192 bytes (the sizes asserted below, the kernel's 48 for
/// an element of a hash, `struct htab_elem`, and the next size that its allocator has) and 16 for a bucket: 52 MiB when
/// full.
pub const MAX_FLOWS: u32 = 256 * FLOWS_PER_OWNER;
/// Most parts of rings: 1,024 owners that have used all of theirs since they were last without a record. Each takes 512
/// bytes, by the same reckoning, and 16 for a bucket: 33 MiB when full.
pub const MAX_RING_PARTS: u32 = 1024 * FLOWS_PER_OWNER / PLACES_PER_PART;
/// Most owners that have had a record: [`super::MAX_INTERFACES`] and as many pods.
pub const MAX_OWNERS: u32 = 2 * super::MAX_INTERFACES;

// The kernel copies these bytes as they lie, and compares keys as a whole: no padding, no surprise.
const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 1);
const _: () = assert!(size_of::<FlowKey>() == 24);
const _: () = assert!(size_of::<Flow>() == 64);
const _: () = assert!(size_of::<RingPart>() == 16 && FLOWS_PER_OWNER.is_multiple_of(PLACES_PER_PART));
const _: () = assert!(size_of::<Ring>() == 8);

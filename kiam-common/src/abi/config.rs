//! Settings that the agent passes to the attached programs.

/// Settings that change while the programs stay attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Config {
    /// Identifier of the kubepods cgroup in the v2 hierarchy; 0 without one.
    pub kubepods: u64,
    /// Cookie of the node's network namespace (`SO_NETNS_COOKIE`); 0 for the kernel's initial namespace.
    pub netns: u64,
    /// The `FLAG_…` that are set.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// [`Config::flags`]: pods in the node's network namespace cannot reach the real IMDS unless they are exempt.
pub const FLAG_ENFORCE: u32 = 1;
/// [`Config::flags`]: the cgroup hooks redirect pods in network namespaces of their own.
pub const FLAG_CGROUP_ONLY: u32 = 2;

/// Bridge port that leads to pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Port {
    /// Index of the bridge.
    pub bridge: u32,
    /// MAC address of the bridge. Frames to it go up to the node's network stack, all others leave by another port.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<Config>() == 24);
const _: () = assert!(size_of::<Port>() == 12);

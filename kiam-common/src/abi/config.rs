//! What the programs are told by the agent while they run.

/// The settings that change while programs stay attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Config {
    /// Identifier of the kubepods cgroup in the v2 hierarchy; 0: there is none.
    pub kubepods: u64,
    /// Cookie of the node's network namespace (`SO_NETNS_COOKIE`); 0: the kernel's first one.
    pub netns: u64,
    /// The `FLAG_…` that are on.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// [`Config::flags`]: sockets of pods in the node's network namespace may not reach M, exemptions apart.
pub const FLAG_ENFORCE: u32 = 1;
/// [`Config::flags`]: pods in their own network namespaces are redirected by the cgroup hooks.
pub const FLAG_CGROUP_ONLY: u32 = 2;

/// A port of a bridge that pods are behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Port {
    /// Index of the bridge.
    pub bridge: u32,
    /// The bridge's own MAC address: what is addressed to it goes up to the node, all else to another port.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<Config>() == 24);
const _: () = assert!(size_of::<Port>() == 12);

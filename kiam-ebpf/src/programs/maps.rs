//! All maps and their bounds. Names and layouts are those of `kiam_common::abi`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, SkStorage, SockMap},
    macros::btf_map,
};
use kiam_common::abi::{
    Address, Config, Counters, Flow, FlowKey, MAX_EXEMPT, MAX_FLOWS, MAX_INTERFACES, MAX_NODE_ADDRS, MAX_OWNERS,
    MAX_RING_PARTS, Owner, Places, Port, Reason, Redirected, Ring, RingPart, SLOTS,
};

/// No preallocation: most maps of a node use a small part of their bound.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The agent's listening sockets. The kernel empties a slot when its socket closes.
#[btf_map(name = "kiam_listeners")]
pub static LISTENERS: SockMap<{ SLOTS as usize }> = SockMap::new();

/// Counters of the interfaces that the TC program is attached to. An entry is added before attaching.
#[btf_map(name = "kiam_interfaces")]
pub static INTERFACES: PerCpuHashMap<u32, Counters, { MAX_INTERFACES as usize }, NO_PREALLOC> = PerCpuHashMap::new();

/// The interfaces of [`INTERFACES`] that are ports of a bridge.
#[btf_map(name = "kiam_ports")]
pub static PORTS: HashMap<u32, Port, { MAX_INTERFACES as usize }, NO_PREALLOC> = HashMap::new();

/// The node's own addresses.
#[btf_map(name = "kiam_node_addrs")]
pub static NODE_ADDRS: HashMap<Address, u8, { MAX_NODE_ADDRS as usize }, NO_PREALLOC> = HashMap::new();

/// Counters of everything outside the attached interfaces.
#[btf_map(name = "kiam_strays")]
pub static STRAYS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// The agent's settings for the running programs.
#[btf_map(name = "kiam_config")]
pub static CONFIG: Array<Config, 1> = Array::new();

/// The connection records.
#[btf_map(name = "kiam_flows")]
pub static FLOWS: HashMap<FlowKey, Flow, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();

/// The rings of each owner's records, in parts.
#[btf_map(name = "kiam_places")]
pub static PLACES: HashMap<RingPart, Places, { MAX_RING_PARTS as usize }, NO_PREALLOC> = HashMap::new();

/// The number of each owner's next record, which gives its place in the ring.
#[btf_map(name = "kiam_rings")]
pub static RINGS: HashMap<u64, Ring, { MAX_OWNERS as usize }, NO_PREALLOC> = HashMap::new();

/// The sockets that a cgroup hook redirected.
#[btf_map(name = "kiam_sockets")]
pub static SOCKETS: SkStorage<Redirected> = SkStorage::new();

/// The cgroups of exempt pods.
#[btf_map(name = "kiam_exempt")]
pub static EXEMPT: HashMap<u64, u8, { MAX_EXEMPT as usize }, NO_PREALLOC> = HashMap::new();

/// The active agent. No program uses it; declared here, the map has a type that tools can display.
#[btf_map(name = "kiam_owner")]
pub static OWNER: Array<Owner, 1> = Array::new();

/// The acknowledgment number of the last reply to a probe, by listener slot.
#[btf_map(name = "kiam_probes")]
pub static PROBES: Array<u32, { SLOTS as usize }> = Array::new();

/// Counts a packet in a value of a per-CPU map.
///
/// # Safety
/// `counters` is a value of a per-CPU map, checked for null.
#[inline(always)]
pub unsafe fn count(counters: *mut Counters, reason: Reason) {
    // SAFETY: as the caller guarantees; nothing else writes this CPU's copy while the program runs.
    unsafe { (*counters).count(reason) };
}

/// Counts a packet or connection outside the attached interfaces.
#[inline(always)]
pub fn count_stray(reason: Reason) {
    if let Some(counters) = STRAYS.get_ptr_mut(0) {
        // SAFETY: a value of the map.
        unsafe { count(counters, reason) };
    }
}

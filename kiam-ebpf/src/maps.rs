//! Every map, with its bound. Names and layouts are those of `kiam_common::abi`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, PerCpuArray, PerCpuHashMap, SockMap},
    macros::btf_map,
};
use core::hint::black_box;
use kiam_common::abi::{Address, Counters, MAX_INTERFACES, MAX_NODE_ADDRS, Reason, SLOTS};

/// The agent's listening sockets. The kernel empties a slot when its socket closes.
#[btf_map(name = "kiam_listeners")]
pub static LISTENERS: SockMap<{ SLOTS as usize }> = SockMap::new();

/// The interfaces that the TC program is attached to, filled before attaching, and what became of their packets.
/// Not preallocated: most nodes use a small part of the bound.
#[btf_map(name = "kiam_interfaces")]
pub static INTERFACES: PerCpuHashMap<u32, Counters, { MAX_INTERFACES as usize }, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();

/// The node's own addresses.
#[btf_map(name = "kiam_node_addrs")]
pub static NODE_ADDRS: HashMap<Address, u8, { MAX_NODE_ADDRS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Packets to M from interfaces without the TC program.
#[btf_map(name = "kiam_strays")]
pub static STRAYS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Counts a packet of an attached interface.
///
/// Each counter at a fixed offset, never at a computed one: for programs of a process without CAP_PERFMON the verifier
/// refuses pointer arithmetic whose operand differs between paths (kernel/bpf/verifier.c, `sanitize_ptr_alu`).
#[inline(always)]
pub fn count(counters: *mut Counters, reason: Reason) {
    match reason {
        Reason::Listener => add::<{ Reason::Listener as usize }>(counters),
        Reason::Connection => add::<{ Reason::Connection as usize }>(counters),
        Reason::NotHttp => add::<{ Reason::NotHttp as usize }>(counters),
        Reason::Malformed => add::<{ Reason::Malformed as usize }>(counters),
        Reason::BadSource => add::<{ Reason::BadSource as usize }>(counters),
        Reason::NoListener => add::<{ Reason::NoListener as usize }>(counters),
        Reason::NotAssigned => add::<{ Reason::NotAssigned as usize }>(counters),
        Reason::Unattached => add::<{ Reason::Unattached as usize }>(counters),
    }
}

#[inline(always)]
fn add<const INDEX: usize>(counters: *mut Counters) {
    // SAFETY: a value of a per-CPU map, checked for null by the lookup: nobody else writes this CPU's copy while the
    // program runs.
    unsafe { (*counters).packets[INDEX] += 1 };
    // Keeps the optimiser from merging the branches into one computed offset.
    black_box(());
}

/// Counts a packet that only the backstop saw.
#[inline(always)]
pub fn count_stray() {
    if let Some(counters) = STRAYS.get_ptr_mut(0) {
        count(counters, Reason::Unattached);
    }
}

//! Writes connection records for the agent, which reads them when it accepts the connections.
//!
//! Each owner (an interface; for the cgroup hooks a pod) has a ring of records, so that a flood of half-open
//! connections displaces only the records of its sender.

use super::{
    ancestry,
    maps::{FLOWS, PLACES, RINGS},
    packet::HttpPacket,
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::HashMap,
    helpers::{
        bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id, bpf_spin_lock,
        bpf_spin_unlock,
    },
    programs::TcContext,
};
use kiam_common::abi::{Address, FLOWS_PER_OWNER, Flow, FlowKey, PLACES_PER_PART, Places, Ring, RingPart};

/// Empty part of a ring. A static, because it does not fit on the stack.
static NO_PLACES: Places =
    [FlowKey { address: Address { octets: [0; 16] }, interface: 0, port: 0, pad: 0 }; PLACES_PER_PART as usize];

/// Returns the evidence of the socket that sent this packet; zeros if the packet carries no socket.
#[inline(always)]
pub fn origin(ctx: &TcContext) -> Flow {
    let skb = ctx.skb.skb;
    // SAFETY: a helper on the context of this run.
    let ancestors = ancestry::from_kubepods(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) });
    // SAFETY: as above.
    let (cgroup, cookie) = unsafe { (bpf_skb_cgroup_id(skb), bpf_get_socket_cookie(skb.cast())) };
    Flow { cgroup, ancestors: ancestors.unwrap_or_default(), cookie, ..Flow::default() }
}

/// Records the connection of a packet that arrived on an interface.
#[inline(always)]
pub fn record(interface: u32, packet: &HttpPacket, origin: Flow) {
    let key = FlowKey { address: packet.source, interface, port: packet.port, pad: 0 };
    record_for(u64::from(interface), &key, origin);
}

/// Records a connection, in place of its owner's oldest record if the ring is full.
#[inline(always)]
pub fn record_for(owner: u64, key: &FlowKey, mut flow: Flow) {
    flow.owner = owner;
    // SAFETY: a helper without arguments.
    flow.noted_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: read at once.
    flow.slot = match unsafe { FLOWS.get(key) } {
        // A retransmitted SYN, or a new attempt from the same port.
        Some(known) if known.owner == owner => known.slot,
        _ => {
            let Some(slot) = next_slot(owner) else { return };
            // A record without a place would not count against its owner.
            let Some(()) = take_place(owner, slot, key) else { return };
            slot
        }
    };
    // If the map is full there is no record, and so no credentials.
    let _full = FLOWS.insert(key, &flow, BPF_ANY.into());
}

#[inline(always)]
fn next_slot(owner: u64) -> Option<u32> {
    let ring = get_or_insert(&RINGS, &owner, &Ring::default())?;
    // SAFETY: a value of the map, checked for null.
    let lock = unsafe { &raw mut (*ring).lock }.cast();
    // Without the lock, a flood on many CPUs would leave records without a place, and fill the map for all owners.
    // SAFETY: the verifier checks that the lock is released on every path; it protects this value only.
    let number = unsafe {
        bpf_spin_lock(lock);
        let number = (*ring).next;
        (*ring).next = number.wrapping_add(1);
        bpf_spin_unlock(lock);
        number
    };
    Some(number % FLOWS_PER_OWNER)
}

/// Gives a place to a record, and removes the previous record of that place unless it has got another place since.
/// `None` if the map is full.
#[inline(always)]
fn take_place(owner: u64, slot: u32, key: &FlowKey) -> Option<()> {
    let place = place(owner, slot)?;
    // SAFETY: a value of the map. Another CPU gets the same place only after a whole round of the ring.
    let oldest = unsafe { place.replace(*key) };
    // SAFETY: read at once.
    let record = unsafe { FLOWS.get(&oldest) };
    if record.is_some_and(|flow| flow.owner == owner && flow.slot == slot) {
        let _already_read = FLOWS.remove(&oldest);
    }
    Some(())
}

#[inline(always)]
fn place(owner: u64, slot: u32) -> Option<*mut FlowKey> {
    let part = RingPart { owner, number: slot / PLACES_PER_PART, pad: 0 };
    let places = get_or_insert(&PLACES, &part, &NO_PLACES)?;
    // SAFETY: within the value.
    Some(unsafe { places.cast::<FlowKey>().add((slot % PLACES_PER_PART) as usize) })
}

/// Returns the value of a key, inserting `empty` if it is missing; `None` if the map is full.
#[inline(always)]
fn get_or_insert<K, V, const MAX_ENTRIES: usize, const FLAGS: usize>(
    map: &HashMap<K, V, MAX_ENTRIES, FLAGS>,
    key: &K,
    empty: &V,
) -> Option<*mut V> {
    if let Some(value) = map.get_ptr_mut(key) {
        return Some(value);
    }
    let _another_cpu_was_first = map.insert(key, empty, BPF_NOEXIST.into());
    map.get_ptr_mut(key)
}

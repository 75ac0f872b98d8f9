//! Who opened a connection, noted for the agent that will accept it.
//!
//! Each owner (an interface; for the cgroup hooks a pod) has a ring of records, so that a flood of half-open connections
//! costs nobody but its sender.

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

/// Keys of no connection. A static, because a part of a ring has no room on the stack.
static NO_PLACES: Places =
    [FlowKey { address: Address { octets: [0; 16] }, interface: 0, port: 0, pad: 0 }; PLACES_PER_PART as usize];

/// What the kernel knows of the socket that sent this packet; zeros when it was none of this machine's.
#[inline(always)]
pub fn origin(ctx: &TcContext) -> Flow {
    let skb = ctx.skb.skb;
    // SAFETY: a helper on the context of this run.
    let ancestors = ancestry::from_kubepods(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) });
    // SAFETY: as above.
    let (cgroup, cookie) = unsafe { (bpf_skb_cgroup_id(skb), bpf_get_socket_cookie(skb.cast())) };
    Flow { cgroup, ancestors: ancestors.unwrap_or_default(), cookie, ..Flow::default() }
}

/// Notes who opened the connection of a packet that came by an interface.
#[inline(always)]
pub fn record(interface: u32, packet: &HttpPacket, origin: Flow) {
    let key = FlowKey { address: packet.source, interface, port: packet.port, pad: 0 };
    record_for(u64::from(interface), &key, origin);
}

/// Notes who opened a connection, at the cost of its owner's oldest record.
#[inline(always)]
pub fn record_for(owner: u64, key: &FlowKey, mut flow: Flow) {
    flow.owner = owner;
    // SAFETY: a helper without arguments.
    flow.noted_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: read at once.
    flow.slot = match unsafe { FLOWS.get(key) } {
        // The same client tries again.
        Some(known) if known.owner == owner => known.slot,
        _ => {
            let Some(slot) = next_slot(owner) else { return };
            // A record without a place would count against nobody.
            let Some(()) = take_place(owner, slot, key) else { return };
            slot
        }
    };
    // A full map: no record, and so no credentials.
    let _full = FLOWS.insert(key, &flow, BPF_ANY.into());
}

#[inline(always)]
fn next_slot(owner: u64) -> Option<u32> {
    let ring = get_or_insert(&RINGS, &owner, &Ring::default())?;
    // SAFETY: a value of the map, checked for null.
    let lock = unsafe { &raw mut (*ring).lock }.cast();
    // Without it, a flood from many processors would leave records without a place, and fill the map for everybody.
    // SAFETY: the verifier sees to it that the lock is released on every path; what it protects is this value's.
    let number = unsafe {
        bpf_spin_lock(lock);
        let number = (*ring).next;
        (*ring).next = number.wrapping_add(1);
        bpf_spin_unlock(lock);
        number
    };
    Some(number % FLOWS_PER_OWNER)
}

/// Gives a place to a record, and removes the one that had it, unless it has been noted anew since. `None`: the map is
/// full.
#[inline(always)]
fn take_place(owner: u64, slot: u32, key: &FlowKey) -> Option<()> {
    let place = place(owner, slot)?;
    // SAFETY: a value of the map. Another processor comes here only when it has gone all the way round the ring.
    let oldest = unsafe { place.replace(*key) };
    // SAFETY: read at once.
    let has_it = unsafe { FLOWS.get(&oldest) };
    if has_it.is_some_and(|flow| flow.owner == owner && flow.slot == slot) {
        let _read_meanwhile = FLOWS.remove(&oldest);
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

/// The value of a key, which is `empty` when it was not there. `None`: the map is full.
#[inline(always)]
fn get_or_insert<K, V, const M: usize, const F: usize>(
    map: &HashMap<K, V, M, F>,
    key: &K,
    empty: &V,
) -> Option<*mut V> {
    if let Some(value) = map.get_ptr_mut(key) {
        return Some(value);
    }
    let _another_processor_was_first = map.insert(key, empty, BPF_NOEXIST.into());
    map.get_ptr_mut(key)
}

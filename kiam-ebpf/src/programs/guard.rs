//! The guard on the node's uplinks. On egress it is the last check of a packet to the IMDS, for networks that bypass
//! the node's routing. On ingress it drops packets from the network, which the fence's `local` route would otherwise
//! deliver.

use super::{
    ancestry,
    maps::{CONFIG, EXEMPT, count_stray},
    packet::concerns_imds,
    redirect::{DROP, NEXT},
};
use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_ancestor_cgroup_id, programs::TcContext};
use kiam_common::abi::{FLAG_ENFORCE, Reason};

/// Drops, on egress, packets to the IMDS that were forwarded and, under enforcement, those that a pod's socket sent.
#[inline(always)]
pub fn outward(ctx: &TcContext) -> i32 {
    if !concerns_imds(ctx) {
        return NEXT;
    }
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    if unsafe { (*skb).ingress_ifindex } != 0 {
        return drop(Reason::Forwarded);
    }
    match CONFIG.get(0) {
        Some(config) if config.flags & FLAG_ENFORCE != 0 && is_pods(skb) => drop(Reason::PodSocket),
        _ => NEXT,
    }
}

/// Drops, on ingress, packets to the IMDS and ARP requests for it.
#[inline(always)]
pub fn inward(ctx: &TcContext) -> i32 {
    if concerns_imds(ctx) { drop(Reason::FromNetwork) } else { NEXT }
}

/// Returns whether a socket of a pod without an exemption sent the packet. Packet sockets have a cgroup, too.
#[inline(always)]
fn is_pods(skb: *mut __sk_buff) -> bool {
    // SAFETY: a helper on the context of this run.
    let ancestors = ancestry::from_kubepods(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) });
    // SAFETY: nothing is read of the value.
    let exempt = |pod: u64| unsafe { EXEMPT.get(&pod) }.is_some();
    matches!(ancestors, Some([_, below, pod]) if !exempt(below) && !exempt(pod))
}

#[inline(always)]
fn drop(reason: Reason) -> i32 {
    count_stray(reason);
    DROP
}

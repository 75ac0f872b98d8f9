//! The guard on the node's uplinks: the last that a packet to M meets on its way out, for networks that get around the
//! node's routing; and the first on its way in, because a `local` route to M would answer the network.

use super::{
    ancestry,
    maps::{CONFIG, EXEMPT, count_stray},
    packet::concerns_imds,
    redirect::{DROP, NEXT},
};
use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_ancestor_cgroup_id, programs::TcContext};
use kiam_common::abi::{FLAG_ENFORCE, Reason};

/// On egress: drops what was forwarded and, under enforcement, what a pod's socket sent.
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

/// On ingress: drops packets to M, and questions for it.
#[inline(always)]
pub fn inward(ctx: &TcContext) -> i32 {
    if concerns_imds(ctx) { drop(Reason::FromNetwork) } else { NEXT }
}

/// Whether a socket of a pod sent the packet that has no exemption. Packet sockets have a cgroup like all others.
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

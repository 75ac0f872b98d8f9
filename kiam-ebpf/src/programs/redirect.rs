//! The redirect by socket assignment. Every packet to port 80 of the IMDS that passes carries a socket, and the kernel
//! never forwards a packet that carries one, with or without the fence.
//!
//! A bridge removes the socket from a packet that it passes up, and the sender's socket is not visible there. So the
//! program on a bridge port writes the connection record and drops what the bridge would not pass up; the program on
//! the bridge assigns.

use super::{
    connection_records, imds_route,
    maps::{INTERFACES, LISTENERS, NODE_ADDRS, PORTS, count},
    packet::{HttpPacket, Packet, classify, destination_mac},
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, TC_ACT_SHOT, bpf_sock, tcx_action_base::TCX_NEXT},
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use core::{ffi::c_void, ptr::read_volatile};
use kiam_common::abi::Reason;

/// Verdict: continue with the next program of the chain, then the stack, so that the CNI's programs and policies still
/// run. `TC_ACT_OK` and `TC_ACT_PIPE` would end the chain (include/net/tcx.h); for clsact the same value is
/// `TC_ACT_UNSPEC`.
pub const NEXT: i32 = TCX_NEXT;
/// Verdict: drop the packet.
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// Returns the verdict on a packet.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let packet = classify(ctx);
    if matches!(packet, Packet::Other) {
        return NEXT;
    }
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    if let Packet::FromImds(to) = &packet
        && imds_route::uses_interface(ctx, interface, to)
    {
        return NEXT;
    }
    // The entry is added before the program is attached: an interface without one is being detached.
    let Some(counters) = INTERFACES.get_ptr_mut(interface) else { return DROP };
    let reason = match packet {
        Packet::Other => return NEXT,
        Packet::Refused(reason) => reason,
        // The node's reply would go to the real IMDS.
        Packet::FromImds(_) => Reason::BadSource,
        Packet::Http(packet) => {
            // Before the assignment, which replaces the sender's socket. Every SYN is recorded: the connection may be
            // established directly, by an ACK with a SYN cookie, or over TIME_WAIT, where the stack finds the listener.
            if packet.syn {
                connection_records::record(interface, &packet, connection_records::origin(ctx));
            }
            // SAFETY: the value is copied at once.
            match unsafe { PORTS.get(&interface) } {
                None => assign(ctx, packet),
                Some(port) if destination_mac(ctx) == Some(port.mac) => return NEXT,
                Some(_) => Reason::NotToBridge,
            }
        }
    };
    // SAFETY: a value of the map.
    unsafe { count(counters, reason) };
    if !reason.is_drop() {
        return NEXT;
    }
    // Unreachable for the verifier unless the agent logs at debug. The reason is a number (`Reason`), because each name
    // would be a path of its own.
    debug!(ctx, "interface {}: dropped a packet to or from the IMDS, reason {}", interface, reason as u32);
    DROP
}

/// Assigns the socket that the stack would find (established, half-open, TIME_WAIT), else the listener, whatever the
/// flags: the listener validates SYN cookies and resets unknown connections. If every SYN were assigned to the
/// listener, a port would be dead for as long as its old connection is in TIME_WAIT.
#[inline(always)]
fn assign(ctx: &TcContext, mut packet: HttpPacket) -> Reason {
    // SAFETY: the verifier checks both arguments and that each reference is released on every path.
    unsafe {
        let found: *mut bpf_sock =
            bpf_skc_lookup_tcp(ctx.as_ptr(), &mut packet.tuple, packet.tuple_len, BPF_F_CURRENT_NETNS as u64, 0);
        if !found.is_null() {
            if read_volatile(&raw const (*found).state) != BPF_TCP_LISTEN {
                return assign_and_release(ctx, found.cast(), Reason::Connection);
            }
            bpf_sk_release(found.cast());
        }
        if NODE_ADDRS.get(&packet.source).is_some() {
            return Reason::BadSource;
        }
        let listener = bpf_map_lookup_elem((&raw const LISTENERS).cast_mut().cast(), (&raw const packet.slot).cast());
        if listener.is_null() {
            return Reason::NoListener;
        }
        assign_and_release(ctx, listener, Reason::Listener)
    }
}

/// Assigns a socket to the packet and releases it.
///
/// # Safety
/// `socket` is a referenced socket from a lookup, and the caller does not use it again.
#[inline(always)]
unsafe fn assign_and_release(ctx: &TcContext, socket: *mut c_void, assigned: Reason) -> Reason {
    // SAFETY: the reference is ours until the release.
    let refused = unsafe { bpf_sk_assign(ctx.as_ptr(), socket, 0) };
    // SAFETY: released exactly once.
    unsafe { bpf_sk_release(socket) };
    if refused == 0 { assigned } else { Reason::NotAssigned }
}

//! The redirect by socket assignment: each packet to M:80 that goes on carries a socket, and a packet that carries one
//! is never forwarded, fence or no fence.
//!
//! A bridge takes the socket off a packet on its way up, and the sender's socket is no longer seen there. So a bridge's
//! ports note who opens a connection, and see to it that it goes up; the bridge assigns.

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

/// The next program of the chain, then the stack: the CNI's own programs and policies still run. `TC_ACT_OK` and
/// `TC_ACT_PIPE` would end the chain (include/net/tcx.h); for clsact the same value is `TC_ACT_UNSPEC`.
pub const NEXT: i32 = TCX_NEXT;
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// The whole program.
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
    // Filled before the program is attached: an interface that is missing is being detached.
    let Some(counters) = INTERFACES.get_ptr_mut(interface) else { return DROP };
    let reason = match packet {
        Packet::Other => return NEXT,
        Packet::Refused(reason) => reason,
        // What the node answers would go to the real service.
        Packet::FromImds(_) => Reason::BadSource,
        Packet::Http(packet) => {
            // Before an assignment takes the place of the sender's socket. The connection may come up at once, or by an
            // ACK that carries a SYN cookie, or over TIME_WAIT, where the stack itself finds the listener.
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
    // Unreachable for the verifier unless the agent logs at debug. A number (`Reason`): each name would be a path of its own.
    debug!(ctx, "interface {}: dropped a packet to the metadata service, reason {}", interface, reason as u32);
    DROP
}

/// Assigns the socket that the stack would have found (established, half-open, TIME_WAIT), else the listener, whatever
/// the flags: the listener validates SYN cookies and resets what it does not know. To hand every SYN to the listener
/// would make a port dead for as long as its old connection is in TIME_WAIT.
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

/// # Safety
/// `socket` is a referenced socket out of a lookup, and the caller does not use it again.
#[inline(always)]
unsafe fn assign_and_release(ctx: &TcContext, socket: *mut c_void, assigned: Reason) -> Reason {
    // SAFETY: the reference is ours until the release.
    let refused = unsafe { bpf_sk_assign(ctx.as_ptr(), socket, 0) };
    // SAFETY: released exactly once.
    unsafe { bpf_sk_release(socket) };
    if refused == 0 { assigned } else { Reason::NotAssigned }
}

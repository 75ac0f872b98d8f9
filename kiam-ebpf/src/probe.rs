//! The self-check's own programs. Two are run by the agent itself (`BPF_PROG_TEST_RUN`) and take what they are to do from
//! `cb[0]`; the third is on the egress of the agent's own interface, which nobody else sends by.

use crate::{
    maps::{LISTENERS, PROBES},
    redirect::DROP,
};
use aya_ebpf::{
    bindings::{BPF_F_INGRESS, bpf_sock},
    helpers::{bpf_clone_redirect, bpf_map_lookup_elem, bpf_sk_release},
    programs::TcContext,
};
use core::ptr::read_volatile;
use kiam_common::abi::{IMDS_PORT, SLOT_V4, SLOT_V6};

/// Bytes of the headers before TCP's: Ethernet, and IPv4 without options or IPv6.
const BEFORE_TCP_V4: usize = 14 + 20;
const BEFORE_TCP_V6: usize = 14 + 40;
/// Offsets in a TCP header (RFC 9293).
const ACKNOWLEDGED: usize = 8;
const FLAGS: usize = 13;
const SYN_ACK: u8 = 0x12;
/// EtherTypes in network order, as `skb->protocol` holds them.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// The port of the listening socket in a slot; 0: there is none.
#[inline(always)]
pub fn slot(ctx: &TcContext) -> i32 {
    let slot = argument(ctx);
    // SAFETY: the verifier checks both arguments, and that the reference is released.
    unsafe {
        let listener: *mut bpf_sock =
            bpf_map_lookup_elem((&raw const LISTENERS).cast_mut().cast(), (&raw const slot).cast()).cast();
        if listener.is_null() {
            return 0;
        }
        let port = read_volatile(&raw const (*listener).src_port);
        bpf_sk_release(listener.cast());
        port as i32
    }
}

/// Lets the packet that it is run with arrive by an interface.
#[inline(always)]
pub fn send(ctx: &TcContext) -> i32 {
    // SAFETY: a helper on the context of this run.
    unsafe { bpf_clone_redirect(ctx.skb.skb, argument(ctx), BPF_F_INGRESS as u64) as i32 }
}

/// Notes what the answer to a probe acknowledges. Nothing leaves by this interface.
#[inline(always)]
pub fn answered(ctx: &TcContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let (slot, tcp) = match unsafe { (*ctx.skb.skb).protocol } {
        IPV4 => (SLOT_V4, BEFORE_TCP_V4),
        IPV6 => (SLOT_V6, BEFORE_TCP_V6),
        _ => return DROP,
    };
    if let Some(acknowledged) = acknowledged(ctx, tcp) {
        // A slot that does not exist is the only error.
        let _ = PROBES.set(slot, acknowledged, 0);
    }
    DROP
}

/// What a SYN-ACK from M's port acknowledges.
#[inline(always)]
fn acknowledged(ctx: &TcContext, tcp: usize) -> Option<u32> {
    let port: u16 = ctx.load(tcp).ok()?;
    let flags: u8 = ctx.load(tcp + FLAGS).ok()?;
    let acknowledged: u32 = ctx.load(tcp + ACKNOWLEDGED).ok()?;
    (port == IMDS_PORT.to_be() && flags & SYN_ACK == SYN_ACK).then_some(u32::from_be(acknowledged))
}

#[inline(always)]
fn argument(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    unsafe { (*ctx.skb.skb).cb[0] }
}

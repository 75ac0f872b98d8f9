//! The programs of the self-check. The agent runs two of them itself (`BPF_PROG_TEST_RUN`), with their argument in
//! `cb[0]`; the third is on the egress of the agent's own interface, which carries no other traffic.

use super::{
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
use kiam_ebpf::net::{ACK, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, SYN, TCP_ACKNOWLEDGMENT, TCP_FLAGS, ethertype};

/// TCP flags of the reply that accepts a connection.
const SYN_ACK: u8 = SYN | ACK;

/// Returns the port of the listening socket in a slot; 0 if it is empty.
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

/// Makes the packet that the program is run with arrive on an interface.
#[inline(always)]
pub fn send(ctx: &TcContext) -> i32 {
    // SAFETY: a helper on the context of this run.
    unsafe { bpf_clone_redirect(ctx.skb.skb, argument(ctx), BPF_F_INGRESS as u64) as i32 }
}

/// Records the acknowledgment number of the reply to a probe. Every packet is dropped: nothing leaves by this interface.
#[inline(always)]
pub fn answered(ctx: &TcContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let (slot, tcp) = match unsafe { (*ctx.skb.skb).protocol } as u16 {
        ethertype::IPV4 => (SLOT_V4, ETHERNET_LEN + IPV4_LEN),
        ethertype::IPV6 => (SLOT_V6, ETHERNET_LEN + IPV6_LEN),
        _ => return DROP,
    };
    if let Some(acknowledged) = acknowledged(ctx, tcp) {
        // The only possible error is a slot that does not exist.
        let _ = PROBES.set(slot, acknowledged, 0);
    }
    DROP
}

/// Returns the acknowledgment number of a SYN-ACK from the IMDS's port.
#[inline(always)]
fn acknowledged(ctx: &TcContext, tcp: usize) -> Option<u32> {
    let port: u16 = ctx.load(tcp).ok()?;
    let flags: u8 = ctx.load(tcp + TCP_FLAGS).ok()?;
    let acknowledged: u32 = ctx.load(tcp + TCP_ACKNOWLEDGMENT).ok()?;
    (port == IMDS_PORT.to_be() && flags & SYN_ACK == SYN_ACK).then_some(u32::from_be(acknowledged))
}

#[inline(always)]
fn argument(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    unsafe { (*ctx.skb.skb).cb[0] }
}

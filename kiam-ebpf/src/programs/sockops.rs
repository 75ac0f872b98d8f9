//! Writes the connection record of a connection that `connect` redirected. Its local port is known only now, when its
//! first packet is created.

use super::{connection_records, maps::SOCKETS};
use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops},
    helpers::bpf_sk_storage_get,
    programs::SockOpsContext,
};
use core::ptr::{null_mut, read_volatile};
use kiam_common::abi::{Address, Flow, FlowKey, OWNER_IS_POD, Redirected};
use kiam_ebpf::net::AF_INET;

/// Handles a socket event. It sets no reply, so that the reply of other programs remains.
#[inline(always)]
pub fn run(ctx: &SockOpsContext) {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return;
    }
    let Some(redirected) = stored(ctx.ops) else { return };
    let Redirected { cgroup, ancestors, cookie, interface, pad: _ } = redirected;
    // `record_for` sets the remaining fields.
    let flow = Flow { cgroup, ancestors, cookie, noted_ns: 0, owner: 0, slot: 0, pad: 0 };
    let port = (ctx.local_port() as u16).to_be();
    let key = FlowKey { address: local_address(ctx.ops), interface, port, pad: 0 };
    connection_records::record_for(owner(&ancestors), &key, flow);
}

/// Returns what the `connect` hook stored with the socket.
#[inline(always)]
fn stored(ops: *const bpf_sock_ops) -> Option<Redirected> {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let socket = unsafe { (*ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the map, and a socket that was checked for null.
    let stored = unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), socket.cast(), null_mut(), 0) };
    // SAFETY: a value of the map, or null.
    unsafe { stored.cast::<Redirected>().as_ref() }.copied()
}

/// Returns the owner of the connection record: the pod, or for a guaranteed pod, which is one level higher, the
/// container. Processes in neither share an owner.
#[inline(always)]
const fn owner(ancestors: &[u64; 3]) -> u64 {
    let [_, one_below, two_below] = *ancestors;
    OWNER_IS_POD | if two_below == 0 { one_below } else { two_below }
}

/// Returns the local address. For the kernel a v4-mapped socket is an IPv6 socket, with its address in that form.
#[inline(always)]
fn local_address(ops: *const bpf_sock_ops) -> Address {
    // SAFETY: the context is valid for the run of the program. It allows loads of four bytes at fixed offsets only:
    // volatile, and all of them unconditionally, so that the compiler does not merge them.
    let (family, v4, v6) = unsafe {
        let v6 = (&raw const (*ops).local_ip6).cast::<u32>();
        (
            read_volatile(&raw const (*ops).family),
            read_volatile(&raw const (*ops).local_ip4),
            [read_volatile(v6), read_volatile(v6.add(1)), read_volatile(v6.add(2)), read_volatile(v6.add(3))],
        )
    };
    if family == AF_INET {
        return Address::from_v4(v4.to_ne_bytes());
    }
    // SAFETY: both are 16 bytes for which every bit pattern is valid.
    Address { octets: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(v6) } }
}

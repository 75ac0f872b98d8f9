//! The redirect by `connect`, for pods that TC does not see: hostNetwork pods under enforcement, and all pods where the
//! hooks are the only redirect. The kernel runs it for sockets that were created below the kubepods cgroup, so never
//! for the node's own processes.
//!
//! A connection goes to the socket that is in the listener slot at this moment: a stored address and port could belong
//! to another process by now. Without a socket in the slot the connection is refused.

use super::{
    caller::{cgroups, in_node_netns, is_exempt},
    maps::{CONFIG, LISTENERS, SOCKETS, count_stray},
    sockaddr::{ALLOW, Endpoint, IMDS, Kind, REFUSE, imds6, rewrite},
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::{bpf_get_socket_cookie, bpf_map_lookup_elem, bpf_sk_release},
    programs::SockAddrContext,
};
use core::ptr::{copy_nonoverlapping, read_volatile};
use kiam_common::abi::{
    BY_HOOK_NODE, BY_HOOK_POD, FLAG_CGROUP_ONLY, FLAG_ENFORCE, Reason, Redirected, SLOT_NODE_V4, SLOT_NODE_V6, SLOT_V4,
    SLOT_V6,
};
use kiam_ebpf::net::TCP;

/// Handles a `connect` to an IPv4 address.
#[inline(always)]
pub fn to_v4(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    if address == IMDS.v4 { to_imds(ctx, Kind::V4) } else { elsewhere(ctx) }
}

/// Handles a `connect` to an IPv6 address, including v4-mapped ones.
#[inline(always)]
pub fn to_v6(ctx: &SockAddrContext) -> i32 {
    match imds6(ctx.sock_addr) {
        Some(kind) => to_imds(ctx, kind),
        None => elsewhere(ctx),
    }
}

/// Deletes what was stored for an earlier connection of the socket: a socket can be connected again.
#[inline(always)]
fn elsewhere(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the socket of the context.
    let _not_stored = unsafe { SOCKETS.delete((*ctx.sock_addr).__bindgen_anon_1.sk) };
    ALLOW
}

#[inline(always)]
fn to_imds(ctx: &SockAddrContext, kind: Kind) -> i32 {
    let Some(config) = CONFIG.get(0) else { return ALLOW };
    // SAFETY: the context of this run.
    let in_node = unsafe { in_node_netns(ctx.as_ptr(), config) };
    if config.flags & if in_node { FLAG_ENFORCE } else { FLAG_CGROUP_ONLY } == 0 {
        return ALLOW;
    }
    match redirect(ctx, kind, in_node) {
        Ok(true) => {
            count_stray(Reason::Connect);
            ALLOW
        }
        Ok(false) => ALLOW,
        Err(Refused) => {
            count_stray(Reason::ConnectRefused);
            REFUSE
        }
    }
}

struct Refused;

/// Redirects the connection to the agent; false for an exempt pod.
#[inline(always)]
fn redirect(ctx: &SockAddrContext, kind: Kind, in_node: bool) -> Result<bool, Refused> {
    let caller = cgroups().ok_or(Refused)?;
    if in_node && is_exempt(&caller) {
        return Ok(false);
    }
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let (protocol, port) = unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).user_port) };
    if protocol != u32::from(TCP) || port != u32::from(IMDS.port) {
        return Err(Refused);
    }
    let to = listener(slot(kind, in_node)).ok_or(Refused)?;
    // SAFETY: the context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let interface = if in_node { BY_HOOK_NODE } else { BY_HOOK_POD };
    store(ctx, Redirected { cgroup: caller.own, ancestors: caller.ancestors, cookie, interface, pad: 0 })?;
    // SAFETY: the context of this run.
    unsafe { rewrite(ctx.sock_addr, kind, &to) };
    Ok(true)
}

/// Stores the caller with the socket, in place of the caller of an earlier connection.
#[inline(always)]
fn store(ctx: &SockAddrContext, mut redirected: Redirected) -> Result<(), Refused> {
    // SAFETY: the socket of the context, and a value that outlives the call.
    let stored = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, Some(&mut redirected)) };
    if stored.is_null() {
        return Err(Refused);
    }
    // SAFETY: a value of the map, checked for null, not on the stack. (The compiler would make an assignment a loop.)
    unsafe { copy_nonoverlapping(&raw const redirected, stored, 1) };
    Ok(())
}

/// Returns the listener slot: the listener on loopback for the node's network namespace; the one on the node's address
/// for other namespaces, which have a loopback of their own.
#[inline(always)]
const fn slot(kind: Kind, in_node: bool) -> u32 {
    match (kind, in_node) {
        (Kind::V4 | Kind::V4Mapped, true) => SLOT_V4,
        (Kind::V4 | Kind::V4Mapped, false) => SLOT_NODE_V4,
        (Kind::V6, true) => SLOT_V6,
        (Kind::V6, false) => SLOT_NODE_V6,
    }
}

/// Returns the address and port of the socket in a listener slot.
#[inline(always)]
fn listener(slot: u32) -> Option<Endpoint> {
    // SAFETY: the map and a key of its size.
    let socket: *const bpf_sock =
        unsafe { bpf_map_lookup_elem((&raw const LISTENERS).cast_mut().cast(), (&raw const slot).cast()) }.cast();
    if socket.is_null() {
        return None;
    }
    // SAFETY: a referenced socket, checked for null; the kernel allows loads of four bytes only: volatile, so that the
    // compiler does not merge them.
    let endpoint = unsafe {
        let v6 = (&raw const (*socket).src_ip6).cast::<u32>();
        Endpoint {
            v4: read_volatile(&raw const (*socket).src_ip4),
            v6: [read_volatile(v6), read_volatile(v6.add(1)), read_volatile(v6.add(2)), read_volatile(v6.add(3))],
            port: (read_volatile(&raw const (*socket).src_port) as u16).to_be(),
        }
    };
    // SAFETY: released exactly once.
    unsafe { bpf_sk_release(socket.cast_mut().cast()) };
    Some(endpoint)
}

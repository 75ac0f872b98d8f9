//! The kernel programs of kiam: entry points only. docs/datapath.md explains the verdict on each kind of packet.

mod ancestry;
mod backstop;
mod caller;
mod connect;
mod connection_records;
mod guard;
mod imds_route;
mod maps;
mod packet;
mod peername;
mod probe;
mod redirect;
mod setsockopt;
mod sockaddr;
mod sockops;

use aya_ebpf::{
    macros::{cgroup_sock_addr, cgroup_sockopt, classifier, sk_lookup, sock_ops},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext, SockoptContext, TcContext},
};

/// TC ingress of each pod interface: redirects TCP to port 80 of the IMDS to the agent, drops everything else to the
/// IMDS.
#[classifier]
pub fn kiam_tc_ingress(ctx: TcContext) -> i32 {
    redirect::run(&ctx)
}

/// TC egress of each uplink: drops packets to the IMDS that were forwarded and, under enforcement, those of pods'
/// sockets.
#[classifier]
pub fn kiam_guard(ctx: TcContext) -> i32 {
    guard::outward(&ctx)
}

/// TC ingress of each uplink: drops packets to the IMDS.
#[classifier]
pub fn kiam_guard_in(ctx: TcContext) -> i32 {
    guard::inward(&ctx)
}

/// Socket lookup in the node's network namespace: the backstop of the TC program.
#[sk_lookup]
pub fn kiam_sk_lookup(ctx: SkLookupContext) -> u32 {
    backstop::run(&ctx)
}

/// `connect` of a pod's socket to an IPv4 address: redirects connections to the IMDS to the agent.
#[cgroup_sock_addr(connect4)]
pub fn kiam_connect4(ctx: SockAddrContext) -> i32 {
    connect::to_v4(&ctx)
}

/// `connect` of a pod's socket to an IPv6 address: redirects connections to the IMDS to the agent.
#[cgroup_sock_addr(connect6)]
pub fn kiam_connect6(ctx: SockAddrContext) -> i32 {
    connect::to_v6(&ctx)
}

/// `getpeername` of a pod's IPv4 socket: returns the IMDS for a redirected connection.
#[cgroup_sock_addr(getpeername4)]
pub fn kiam_peername4(ctx: SockAddrContext) -> i32 {
    peername::of_v4(&ctx)
}

/// `getpeername` of a pod's IPv6 socket: returns the IMDS for a redirected connection.
#[cgroup_sock_addr(getpeername6)]
pub fn kiam_peername6(ctx: SockAddrContext) -> i32 {
    peername::of_v6(&ctx)
}

/// First packet of a pod's connection: writes the connection record.
#[sock_ops]
pub fn kiam_sockops(ctx: SockOpsContext) -> u32 {
    sockops::run(&ctx);
    1
}

/// `setsockopt` of a pod's socket: refuses the two options that would hide its packets from the guard.
#[cgroup_sockopt(setsockopt)]
pub fn kiam_setsockopt(ctx: SockoptContext) -> i32 {
    setsockopt::run(&ctx)
}

/// Self-check: returns the port of the socket in a listener slot.
#[classifier]
pub fn kiam_slot(ctx: TcContext) -> i32 {
    probe::slot(&ctx)
}

/// Self-check: makes the probe arrive as a pod's packet would.
#[classifier]
pub fn kiam_probe(ctx: TcContext) -> i32 {
    probe::send(&ctx)
}

/// TC egress of the probe's interface: records the reply to a probe.
#[classifier]
pub fn kiam_probe_out(ctx: TcContext) -> i32 {
    probe::answered(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}

/// License of the programs. The helpers that assign sockets are for GPL-compatible programs only (`gpl_only`,
/// net/core/filter.c).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! `getpeername` of a redirected socket returns the IMDS, the address that the client connected to.

use super::{
    maps::SOCKETS,
    sockaddr::{ALLOW, IMDS, Kind, kind6, rewrite},
};
use aya_ebpf::programs::SockAddrContext;

/// Handles the call for an IPv4 socket.
#[inline(always)]
pub fn of_v4(ctx: &SockAddrContext) -> i32 {
    rewrite_redirected(ctx, |_| Kind::V4)
}

/// Handles the call for an IPv6 socket.
#[inline(always)]
pub fn of_v6(ctx: &SockAddrContext) -> i32 {
    rewrite_redirected(ctx, |ctx| kind6(ctx.sock_addr))
}

#[inline(always)]
fn rewrite_redirected(ctx: &SockAddrContext, kind: impl Fn(&SockAddrContext) -> Kind) -> i32 {
    // SAFETY: nothing is read of the value.
    if !unsafe { SOCKETS.get_ptr_mut(ctx) }.is_null() {
        // SAFETY: the context of this run.
        unsafe { rewrite(ctx.sock_addr, kind(ctx), &IMDS) };
    }
    ALLOW
}

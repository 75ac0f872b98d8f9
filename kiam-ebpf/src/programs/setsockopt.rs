//! Refuses, to hostNetwork pods under enforcement, two socket options whose packets bypass TC programs and so the
//! guard. (A system call of another word size bypasses this hook: net/socket.c, `compat`.)

use super::{
    caller::{cgroups, in_node_netns, is_exempt},
    maps::CONFIG,
    sockaddr::{ALLOW, REFUSE},
};
use aya_ebpf::{EbpfContext as _, programs::SockoptContext};
use core::ptr::read_volatile;
use kiam_common::abi::{Config, FLAG_ENFORCE, SOCKOPT_HELPERS_NETNS, SOCKOPT_HELPERS_POD};

/// Level and name of the option by which packets go directly to the device (packet(7); include/linux/socket.h,
/// include/uapi/linux/if_packet.h).
const PACKET_QDISC_BYPASS: (i32, i32) = (263, 20);
/// Level and name of the first option of a socket that shares memory with the device (include/uapi/linux/if_xdp.h).
const XDP_UMEM_REG: (i32, i32) = (283, 4);

/// Bytes of the smallest page. The kernel copies at most a page of an option for this program; for a longer option the
/// program must set `optlen` to 0, which leaves it unchanged (`__cgroup_bpf_run_filter_setsockopt`,
/// kernel/bpf/cgroup.c).
const PAGE_SIZE_MIN: i32 = 4096;

/// Helpers that the kernel provides here, set before the object is loaded (`abi::GLOBAL_SOCKOPT_HELPERS`). To the
/// verifier it is a constant, so the code that it excludes is not verified.
#[unsafe(no_mangle)]
static KIAM_SOCKOPT_HELPERS: u8 = SOCKOPT_HELPERS_POD;

#[inline(always)]
fn provides(helpers: u8) -> bool {
    // SAFETY: a live static; volatile, because the loader changes the value that the compiler sees.
    unsafe { read_volatile(&raw const KIAM_SOCKOPT_HELPERS) >= helpers }
}

/// Returns the verdict on a `setsockopt`.
#[inline(always)]
pub fn run(ctx: &SockoptContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let (level, name, length) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname, (*ctx.sockopt).optlen) };
    let hides = (level, name) == PACKET_QDISC_BYPASS || (level, name) == XDP_UMEM_REG;
    if hides && CONFIG.get(0).is_some_and(|config| is_refused(ctx, config)) {
        return REFUSE;
    }
    if length > PAGE_SIZE_MIN {
        // SAFETY: as above.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    ALLOW
}

/// Returns whether the call is refused. Where the kernel does not provide the pod, all pods are refused.
#[inline(always)]
fn is_refused(ctx: &SockoptContext, config: &Config) -> bool {
    if config.flags & FLAG_ENFORCE == 0 {
        return false;
    }
    // SAFETY: the context of this run.
    if provides(SOCKOPT_HELPERS_NETNS) && !unsafe { in_node_netns(ctx.as_ptr(), config) } {
        return false;
    }
    !provides(SOCKOPT_HELPERS_POD) || !cgroups().is_some_and(|caller| is_exempt(&caller))
}

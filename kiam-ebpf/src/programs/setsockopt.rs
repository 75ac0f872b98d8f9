//! Two socket options make packets that no TC program sees, so the guard doesn't either: under enforcement hostNetwork
//! pods are refused them. (A system call of another word size passes this hook by: net/socket.c, `compat`.)

use super::{
    caller::{cgroups, in_node_netns, is_exempt},
    maps::CONFIG,
    sockaddr::{ALLOW, REFUSE},
};
use aya_ebpf::{EbpfContext as _, programs::SockoptContext};
use core::ptr::read_volatile;
use kiam_common::abi::{Config, FLAG_ENFORCE, SOCKOPT_TELLS_NETNS, SOCKOPT_TELLS_POD};

/// Packets go to the device by themselves (packet(7); include/linux/socket.h, include/uapi/linux/if_packet.h).
const PACKET_QDISC_BYPASS: (i32, i32) = (263, 20);
/// The first step of a socket that shares memory with the device (include/uapi/linux/if_xdp.h).
const XDP_UMEM_REG: (i32, i32) = (283, 4);

/// The largest option that is copied for this program; of a larger one it must say that it left it alone
/// (`__cgroup_bpf_run_filter_setsockopt`, kernel/bpf/cgroup.c). Nobody's pages are smaller.
const PAGE: i32 = 4096;

/// What this kernel tells here, set before the object is loaded (`abi::GLOBAL_SOCKOPT_TELLS`). A constant to the
/// verifier, which never looks at what it rules out.
#[unsafe(no_mangle)]
static KIAM_SOCKOPT_TELLS: u8 = SOCKOPT_TELLS_POD;

#[inline(always)]
fn tells(what: u8) -> bool {
    // SAFETY: a live static; volatile, because the value is the loader's, not the compiler's.
    unsafe { read_volatile(&raw const KIAM_SOCKOPT_TELLS) >= what }
}

/// The whole program.
#[inline(always)]
pub fn run(ctx: &SockoptContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let (level, name, length) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname, (*ctx.sockopt).optlen) };
    let hides = (level, name) == PACKET_QDISC_BYPASS || (level, name) == XDP_UMEM_REG;
    if hides && CONFIG.get(0).is_some_and(|config| may_not(ctx, config)) {
        return REFUSE;
    }
    if length > PAGE {
        // SAFETY: as above.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    ALLOW
}

/// Where the kernel does not tell whose socket it is, no pod may.
#[inline(always)]
fn may_not(ctx: &SockoptContext, config: &Config) -> bool {
    if config.flags & FLAG_ENFORCE == 0 {
        return false;
    }
    // SAFETY: the context of this run.
    if tells(SOCKOPT_TELLS_NETNS) && !unsafe { in_node_netns(ctx.as_ptr(), config) } {
        return false;
    }
    !tells(SOCKOPT_TELLS_POD) || !cgroups().is_some_and(|caller| is_exempt(&caller))
}

//! Lists the programs at a hook (`BPF_PROG_QUERY`). aya's query opens each program by its id, which takes
//! CAP_SYS_ADMIN.

use std::{io, mem::size_of};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_PROG_QUERY: libc::c_long = 16;
/// `enum bpf_attach_type`, there.
const BPF_SK_LOOKUP: u32 = 36;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// Most programs at one hook: the kernel allows 64 (`BPF_MPROG_MAX`, include/linux/bpf_mprog.h; `MAX_PROGS` of
/// `sk_lookup`, kernel/bpf/net_namespace.c).
const PROGRAMS_MAX: usize = 64;

/// A hook that can have several programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryHook {
    /// TCX ingress of an interface.
    TcxIngress(u32),
    /// TCX egress of an interface.
    TcxEgress(u32),
    /// Socket lookup in the network namespace of this descriptor.
    SkLookup(u32),
}

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Returns the ids of the programs at a hook, in the order in which they run.
///
/// # Errors
/// `ENODEV` if the interface no longer exists, `EINVAL` if the kernel has no such hook.
pub(crate) fn programs(hook: QueryHook) -> io::Result<Vec<u32>> {
    let (target, attach_type) = match hook {
        QueryHook::TcxIngress(interface) => (interface, BPF_TCX_INGRESS),
        QueryHook::TcxEgress(interface) => (interface, BPF_TCX_EGRESS),
        QueryHook::SkLookup(namespace) => (namespace, BPF_SK_LOOKUP),
    };
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut query = ProgQuery {
        target,
        attach_type,
        program_ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(PROGRAMS_MAX).map_err(io::Error::other)?,
        ..ProgQuery::default()
    };
    let size = size_of::<ProgQuery>();
    // SAFETY: the kernel writes into `query`, whose size is passed along, and at most `count` ids through the address
    // in it, which is the length of `ids`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(count).collect())
}

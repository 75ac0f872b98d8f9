//! The caller of a system call in a cgroup hook: the cgroup of the process, and the network namespace of its socket.

use super::{ancestry, maps::EXEMPT};
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie};
use core::{ffi::c_void, ptr::null_mut};
use kiam_common::abi::Config;

/// Cgroups of the calling process.
pub struct Cgroups {
    /// The cgroup that the process is in.
    pub own: u64,
    /// Its ancestors from kubepods down.
    pub ancestors: [u64; 3],
}

/// Returns the cgroups of the calling process; `None` if it is not below kubepods.
///
/// The hooks run for sockets that were created below the kubepods cgroup, but a socket can be passed to another
/// process. A caller outside kubepods gets no connection: it cannot use a pod's socket as the node's.
#[inline(always)]
pub fn cgroups() -> Option<Cgroups> {
    // SAFETY: a helper without pointers.
    let ancestors = ancestry::from_kubepods(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })?;
    // SAFETY: a helper without arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    Some(Cgroups { own, ancestors })
}

/// Returns whether these are the cgroups of an exempt pod.
#[inline(always)]
pub fn is_exempt(cgroups: &Cgroups) -> bool {
    let [_, one_below, two_below] = &cgroups.ancestors;
    // SAFETY: nothing is read of the values.
    unsafe { EXEMPT.get(one_below).is_some() || EXEMPT.get(two_below).is_some() }
}

/// Returns whether the hook's socket is in the node's network namespace, as those of hostNetwork pods are.
///
/// # Safety
/// `ctx` is the context of this run.
#[inline(always)]
pub unsafe fn in_node_netns(ctx: *mut c_void, config: &Config) -> bool {
    // SAFETY: as the caller guarantees.
    let netns = unsafe { bpf_get_netns_cookie(ctx) };
    // SAFETY: without a context the helper returns the cookie of the kernel's initial namespace.
    let node = if config.netns == 0 { unsafe { bpf_get_netns_cookie(null_mut()) } } else { config.netns };
    netns == node
}

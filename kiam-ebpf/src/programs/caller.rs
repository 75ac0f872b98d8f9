//! Who makes a system call that a cgroup hook sees: the process's own cgroup, and the network namespace of its socket.

use super::{ancestry, maps::EXEMPT};
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie};
use core::{ffi::c_void, ptr::null_mut};
use kiam_common::abi::Config;

/// The calling process's cgroup, and of its ancestors the kubepods cgroup and the two below it.
pub struct Cgroups {
    pub own: u64,
    pub ancestors: [u64; 3],
}

/// The calling process's cgroups.
///
/// The hooks run for the sockets that were made below the kubepods cgroup. The caller may be another: a socket can be
/// handed on. One from outside gets `None`, and no connection: a pod's socket does not become the node's that way.
#[inline(always)]
pub fn cgroups() -> Option<Cgroups> {
    // SAFETY: a helper without pointers.
    let ancestors = ancestry::from_kubepods(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })?;
    // SAFETY: a helper without arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    Some(Cgroups { own, ancestors })
}

/// Whether these are the cgroups of a pod that keeps the node's role.
#[inline(always)]
pub fn is_exempt(cgroups: &Cgroups) -> bool {
    let [_, one_below, two_below] = &cgroups.ancestors;
    // SAFETY: nothing is read of the values.
    unsafe { EXEMPT.get(one_below).is_some() || EXEMPT.get(two_below).is_some() }
}

/// Whether a hook's socket is in the node's network namespace: its process belongs to a hostNetwork pod.
///
/// # Safety
/// `ctx` is the context of this run.
#[inline(always)]
pub unsafe fn in_node_netns(ctx: *mut c_void, config: &Config) -> bool {
    // SAFETY: the caller's.
    let netns = unsafe { bpf_get_netns_cookie(ctx) };
    // SAFETY: without a context the helper tells the cookie of the kernel's first namespace.
    let node = if config.netns == 0 { unsafe { bpf_get_netns_cookie(null_mut()) } } else { config.netns };
    netns == node
}

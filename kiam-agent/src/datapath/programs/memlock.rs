//! The limit of locked memory, which Linux below 5.11 counts the memory of programs and maps against.

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::io::{self, ErrorKind};

/// From here on control groups of the memory controller count it.
const UNCOUNTED_SINCE: KernelVersion = KernelVersion::new(5, 11, 0);

/// Says what to do about the limit, where it may be what the kernel refused something for: such a kernel says no more than
/// that it is not permitted. With CAP_SYS_RESOURCE aya has raised the limit by now.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(limit, _)| limit);
    if KernelVersion::current().is_ok_and(|kernel| kernel >= UNCOUNTED_SINCE)
        || limit == RLIM_INFINITY
        || !is_not_permitted(&error)
    {
        return error;
    }
    error.context(format!(
        "Linux below 5.11 counts eBPF's memory against the limit of locked memory (RLIMIT_MEMLOCK), which is {} KiB here: \
         add the capability SYS_RESOURCE to the agent's container, or raise the limit where containers get theirs",
        limit / 1024
    ))
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::PermissionDenied)
}

//! The limit of locked memory (RLIMIT_MEMLOCK): Linux before 5.11 counts the memory of programs and maps against it.

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::io::{self, ErrorKind};

/// First version that counts this memory in the memory cgroup instead.
const UNCOUNTED_SINCE: KernelVersion = KernelVersion::new(5, 11, 0);

/// Adds a remedy to the error if the limit may be its cause: such a kernel returns just `EPERM`. With CAP_SYS_RESOURCE
/// aya has raised the limit already.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(limit, _)| limit);
    if KernelVersion::current().is_ok_and(|kernel| kernel >= UNCOUNTED_SINCE)
        || limit == RLIM_INFINITY
        || !is_not_permitted(&error)
    {
        return error;
    }
    error.context(format!(
        "Linux before 5.11 counts the memory of eBPF programs and maps against the limit of locked memory \
         (RLIMIT_MEMLOCK), which is {} KiB here: add the capability SYS_RESOURCE to the agent's container, or raise \
         the limit in the configuration of the container runtime",
        limit / 1024
    ))
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::PermissionDenied)
}

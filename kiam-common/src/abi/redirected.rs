//! Record that a cgroup hook stores with each socket that it redirects.

/// Caller of a redirected `connect`. The `connect` hook stores it; the `sock_ops` program, which sees the port of the
/// connection, writes the connection record from it. While it exists, `getpeername` returns the IMDS. The first fields
/// are those of [`super::Flow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Redirected {
    /// Cgroup of the calling process.
    pub cgroup: u64,
    /// The ancestors of that cgroup.
    pub ancestors: [u64; 3],
    /// Cookie of the socket.
    pub cookie: u64,
    /// [`super::BY_HOOK_NODE`] or [`super::BY_HOOK_POD`].
    pub interface: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Redirected>() == 48);

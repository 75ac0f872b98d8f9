//! What is noted on a socket that a cgroup hook redirected.

/// Who called `connect`, from the hook that saw the call to the one that sees the connection's own port; and the sign
/// by which `getpeername` is answered with M. The first fields are those of [`super::Flow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Redirected {
    /// The caller's own cgroup.
    pub cgroup: u64,
    /// Its ancestors.
    pub ancestors: [u64; 3],
    /// The socket's cookie.
    pub cookie: u64,
    /// [`super::BY_HOOK_NODE`] or [`super::BY_HOOK_POD`].
    pub interface: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Redirected>() == 48);

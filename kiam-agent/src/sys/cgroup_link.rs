//! Links between a program and a cgroup. aya creates them for most kinds of programs, but returns no descriptor of a
//! `cgroup/setsockopt` link, which is needed to pin it, and not the cgroup of a link.

use super::{bpf, open_pin, unsigned};
use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;

/// `union bpf_attr` of `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, for a link of a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    end: u32,
}

/// Attaches a program to a cgroup, in addition to those that it has, by a pinned link. `attach_type` is one of `enum
/// bpf_attach_type`.
///
/// # Errors
/// `EEXIST` if something is pinned there, `EPERM` if an ancestor has a program that forbids others.
pub(crate) fn pin_cgroup_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
    pin: &Path,
) -> io::Result<()> {
    let create = LinkCreate {
        program_fd: unsigned(program.as_raw_fd())?,
        target_fd: unsigned(cgroup.as_raw_fd())?,
        attach_type,
        flags: 0,
    };
    let link = bpf(BPF_LINK_CREATE, &create)?;
    // SAFETY: the kernel has just created this descriptor, and no other code has it.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjPin { path: path.as_ptr() as u64, fd: unsigned(link.as_raw_fd())?, flags: 0 };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// Returns the identifier of the cgroup of a pinned link; 0 if the cgroup no longer exists, or the link is detached.
///
/// # Errors
/// `ENOENT` if nothing is pinned there.
pub(crate) fn cgroup_of_pinned_link(pin: &Path) -> io::Result<u64> {
    Ok(info(pin)?.cgroup_id)
}

/// Returns the ids of a pinned link of any kind and of its program.
///
/// # Errors
/// `ENOENT` if nothing is pinned there.
pub(crate) fn ids_of_pinned_link(pin: &Path) -> io::Result<(u32, u32)> {
    info(pin).map(|info| (info.id, info.program_id))
}

fn info(pin: &Path) -> io::Result<LinkInfo> {
    let link = open_pin(pin)?;
    let mut info = LinkInfo::default();
    let attr = GetInfo {
        fd: unsigned(link.as_raw_fd())?,
        len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info)
}

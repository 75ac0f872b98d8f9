//! System calls without a safe wrapper in any crate: the only `unsafe` code of this crate.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

pub(crate) mod cgroup_link;
pub(crate) mod query;
pub(crate) mod sockopt;

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// Replaces the program of a pinned link atomically (`bpf_link_update`, kernel/bpf/syscall.c). aya offers this for TCX
/// links only.
///
/// # Errors
/// `ENOENT` if nothing is pinned there, `ENOLINK` if the link's target no longer exists.
pub(crate) fn update_pinned_link(pin: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = open_pin(pin)?;
    let attr = LinkUpdate {
        link_fd: unsigned(link.as_raw_fd())?,
        new_program_fd: unsigned(program.as_raw_fd())?,
        flags: 0,
        old_program_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &attr).map(drop)
}

fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &attr)?;
    // SAFETY: the kernel has just created this descriptor, and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<RawFd> {
    // SAFETY: `attr` is a live value of the layout that the command reads, and its size is passed along.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(result).map_err(io::Error::other) }
}

fn unsigned(fd: RawFd) -> io::Result<u32> {
    u32::try_from(fd).map_err(io::Error::other)
}

/// Lets an IPv6 socket answer from an address that is not the node's (`IPV6_TRANSPARENT`, ipv6(7)). Needs
/// CAP_NET_ADMIN.
pub(crate) fn set_ipv6_transparent(socket: &impl AsFd, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the option's value is a live int, and its size is passed along.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes for the control messages of an accepted connection: its packet information and other enabled messages.
const CONTROL_LEN: usize = 512;

/// Returns the interface by which an accepted TCP connection arrived, at layer 3 (for a bridged pod: the bridge). The
/// kernel stores it in the socket; the listener must have `IP_PKTINFO` or `IPV6_RECVPKTINFO` set (`do_ip_getsockopt` in
/// net/ipv4/ip_sockglue.c, `do_ipv6_getsockopt` in net/ipv6/ipv6_sockglue.c).
pub(crate) fn ingress_interface(connection: &impl AsFd, ipv6: bool) -> io::Result<u32> {
    let (level, option) =
        if ipv6 { (libc::SOL_IPV6, libc::IPV6_2292PKTOPTIONS) } else { (libc::SOL_IP, libc::IP_PKTOPTIONS) };
    // u64: control messages are aligned to the machine's word.
    let mut control = [MaybeUninit::<u64>::zeroed(); CONTROL_LEN / size_of::<u64>()];
    let mut len = libc::socklen_t::try_from(CONTROL_LEN).map_err(io::Error::other)?;
    let fd = connection.as_fd().as_raw_fd();
    // SAFETY: the buffer is live, and `len` is its size; the kernel writes at most that much and returns how much.
    let result = unsafe { libc::getsockopt(fd, level, option, control.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a zeroed msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = usize::try_from(len).map_err(io::Error::other)?;
    interface_of(&message).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no packet information on the socket"))
}

/// Returns the interface index from the packet information in a message's control messages.
fn interface_of(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the header describes a live buffer that the kernel filled; the CMSG macros stay within it.
    let mut cursor = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !cursor.is_null() {
        // SAFETY: not null, hence a whole header within the buffer.
        let header = unsafe { &*cursor };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(cursor) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                // SAFETY: a message of this type carries an in_pktinfo; it may be unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                return u32::try_from(info.ipi_ifindex).ok();
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO | libc::IPV6_2292PKTINFO) => {
                // SAFETY: a message of either type carries an in6_pktinfo; it may be unaligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                return Some(info.ipi6_ifindex);
            }
            _ => {}
        }
        // SAFETY: `cursor` came out of this message.
        cursor = unsafe { libc::CMSG_NXTHDR(message, cursor) };
    }
    None
}

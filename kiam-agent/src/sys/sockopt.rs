//! Socket options with a block of bytes as their value: the control interface of x_tables
//! (include/uapi/linux/netfilter_ipv4/ip_tables.h).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Length of an `xt_counters` in bytes.
pub(crate) const XT_COUNTERS_LEN: usize = 16;

/// Reads an option into `value`, which also contains the request. Returns how many bytes the kernel wrote.
pub(crate) fn get(socket: &impl AsFd, level: i32, option: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is live and `len` is its size; the kernel writes at most that much and returns how much.
    let result = unsafe { libc::getsockopt(fd, level, option, value.as_mut_ptr().cast(), &raw mut len) };
    if result == 0 { usize::try_from(len).map_err(io::Error::other) } else { Err(io::Error::last_os_error()) }
}

/// Replaces a table: `head` is an `ipt_replace` up to its `num_counters`, `tail` the entries. Returns the counters of
/// the `replaced` entries of the old table.
///
/// # Errors
/// `EAGAIN` if the old table now has another number of entries.
pub(crate) fn replace_table(
    socket: &impl AsFd,
    level: i32,
    option: i32,
    head: &[u8],
    replaced: u32,
    tail: &[u8],
) -> io::Result<Vec<u8>> {
    let entries = usize::try_from(replaced).map_err(io::Error::other)?;
    let mut counters = vec![0_u8; entries * XT_COUNTERS_LEN];
    let mut value = head.to_vec();
    value.extend(replaced.to_ne_bytes());
    value.extend((counters.as_mut_ptr() as usize).to_ne_bytes());
    value.extend(tail);
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is live and `len` its size. The kernel writes through the address in it as many counters as the
    // number before it says, which is the length of `counters` (`__do_replace`, net/ipv4/netfilter/ip_tables.c).
    let result = unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) };
    if result == 0 { Ok(counters) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option with a value that contains no addresses.
pub(crate) fn set(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is live and `len` is its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

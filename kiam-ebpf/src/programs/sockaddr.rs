//! The socket address of a system call, as the cgroup hooks read and rewrite it.

use aya_ebpf::bindings::bpf_sock_addr;
use core::ptr::{read_volatile, write_volatile};
use kiam_common::abi::IMDS_PORT;
use kiam_ebpf::net::{IMDS_V4_WORD, IMDS_V6_WORDS};

/// Verdict of a hook: the system call continues.
pub const ALLOW: i32 = 1;
/// Verdict of a hook: the system call fails with `EPERM`.
pub const REFUSE: i32 = 0;

/// The words before the IPv4 address in a v4-mapped address (RFC 4291).
const V4_MAPPED: [u32; 3] = [0, 0, 0x0000_ffff_u32.to_be()];

/// Kind of an address.
#[derive(Clone, Copy)]
pub enum Kind {
    V4,
    V4Mapped,
    V6,
}

/// An address and a port, in network order.
pub struct Endpoint {
    /// Address for [`Kind::V4`] and [`Kind::V4Mapped`].
    pub v4: u32,
    /// Address for [`Kind::V6`].
    pub v6: [u32; 4],
    pub port: u16,
}

/// Address and port of the IMDS.
pub const IMDS: Endpoint = Endpoint { v4: IMDS_V4_WORD, v6: IMDS_V6_WORDS, port: IMDS_PORT.to_be() };

/// Returns the kind of an IPv6 address.
#[inline(always)]
pub fn kind6(address: *const bpf_sock_addr) -> Kind {
    let words = words(address);
    if [words[0], words[1], words[2]] == V4_MAPPED { Kind::V4Mapped } else { Kind::V6 }
}

/// Returns the kind of an IPv6 address of the IMDS; `None` if it is another address.
#[inline(always)]
pub fn imds6(address: *const bpf_sock_addr) -> Option<Kind> {
    let words = words(address);
    if words == IMDS.v6 {
        Some(Kind::V6)
    } else if [words[0], words[1], words[2]] == V4_MAPPED && words[3] == IMDS.v4 {
        Some(Kind::V4Mapped)
    } else {
        None
    }
}

/// Replaces the address and port by those of `to`.
///
/// # Safety
/// `address` is the context of this run.
#[inline(always)]
pub unsafe fn rewrite(address: *mut bpf_sock_addr, kind: Kind, to: &Endpoint) {
    // SAFETY: as the caller guarantees; each word is written separately, see `words`.
    unsafe {
        let words = (&raw mut (*address).user_ip6).cast::<u32>();
        match kind {
            Kind::V4 => write_volatile(&raw mut (*address).user_ip4, to.v4),
            Kind::V4Mapped => write_volatile(words.add(3), to.v4),
            Kind::V6 => {
                write_volatile(words, to.v6[0]);
                write_volatile(words.add(1), to.v6[1]);
                write_volatile(words.add(2), to.v6[2]);
                write_volatile(words.add(3), to.v6[3]);
            }
        }
        write_volatile(&raw mut (*address).user_port, to.port.into());
    }
}

/// Returns the words of an IPv6 address. The context allows accesses of four bytes only: volatile, so that the compiler
/// does not merge them.
#[inline(always)]
fn words(address: *const bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the context is valid for the run of the program, and these are within the four words of the address.
    unsafe {
        let words = (&raw const (*address).user_ip6).cast::<u32>();
        [read_volatile(words), read_volatile(words.add(1)), read_volatile(words.add(2)), read_volatile(words.add(3))]
    }
}

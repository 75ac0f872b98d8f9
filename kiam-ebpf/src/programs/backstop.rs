//! The backstop of the TC program. It runs for the IMDS in three cases: inside `bpf_skc_lookup_tcp`; for a SYN that
//! meets TIME_WAIT, where the stack looks up the listener itself; and for strays: an interface without the program,
//! another port, UDP. The first two get the listener. Strays are dropped, so that no process of the node that listens
//! on a wildcard address ever receives one.
//!
//! Before Linux 5.17 the context does not contain the interface, so everything is dropped. A client that reuses a port
//! whose last connection is in TIME_WAIT then gets one reset; with `net.ipv4.tcp_rfc1337`, which makes the kernel
//! ignore that reset, the port is dead until TIME_WAIT ends.

use super::maps::{INTERFACES, LISTENERS, count_stray};
use aya_ebpf::{
    bindings::{
        bpf_sk_lookup,
        sk_action::{SK_DROP, SK_PASS},
    },
    programs::SkLookupContext,
};
use core::ptr::read_volatile;
use kiam_common::abi::{IMDS_PORT, Reason, SLOT_V4, SLOT_V6};
use kiam_ebpf::net::{AF_INET, AF_INET6, IMDS_V4_WORD, IMDS_V6_WORDS, TCP};

/// 1 if the context has `ingress_ifindex`; set before the object is loaded (`abi::GLOBAL_INGRESS_IFINDEX`). To the
/// verifier it is a constant, so the code that it excludes is not verified.
#[unsafe(no_mangle)]
static KIAM_INGRESS_IFINDEX: u8 = 1;

#[inline(always)]
fn has_interface() -> bool {
    // SAFETY: a live static; volatile, because the loader changes the value that the compiler sees.
    unsafe { read_volatile(&raw const KIAM_INGRESS_IFINDEX) != 0 }
}

/// Returns the verdict on a socket lookup.
#[inline(always)]
pub fn run(ctx: &SkLookupContext) -> u32 {
    let Some(slot) = slot_of(ctx.lookup) else { return SK_PASS };
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let lookup = unsafe { &*ctx.lookup };
    let http = lookup.protocol == u32::from(TCP) && lookup.local_port == u32::from(IMDS_PORT);
    if !has_interface() {
        if !http {
            count_stray(Reason::Unattached);
        }
        return SK_DROP;
    }
    let interface = lookup.ingress_ifindex;
    if INTERFACES.get_ptr(interface).is_none() {
        count_stray(Reason::Unattached);
        return SK_DROP;
    }
    if http && LISTENERS.redirect_sk_lookup(ctx, slot, 0).is_ok() { SK_PASS } else { SK_DROP }
}

/// Returns the listener slot for a lookup of the IMDS; `None` for any other address.
#[inline(always)]
fn slot_of(lookup: *const bpf_sk_lookup) -> Option<u32> {
    // SAFETY: the context is valid for the run of the program; the verifier checks each field.
    let family = unsafe { (*lookup).family };
    match family {
        AF_INET => {
            // SAFETY: as above.
            let address = unsafe { (*lookup).local_ip4 };
            (address == IMDS_V4_WORD).then_some(SLOT_V4)
        }
        AF_INET6 => {
            // The context allows loads of at most four bytes: volatile, so that the compiler does not merge them.
            // SAFETY: as above.
            let words = unsafe { &raw const (*lookup).local_ip6 }.cast::<u32>();
            let mut index = 0;
            while index < IMDS_V6_WORDS.len() {
                // SAFETY: within the four words of the address.
                if unsafe { read_volatile(words.add(index)) } != IMDS_V6_WORDS[index] {
                    return None;
                }
                index += 1;
            }
            Some(SLOT_V6)
        }
        _ => None,
    }
}

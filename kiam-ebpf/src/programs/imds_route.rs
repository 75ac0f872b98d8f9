//! The node's route to the real IMDS. Replies from the real IMDS arrive on it. A packet that claims the IMDS as its
//! source on any other interface comes from a pod; answering it would send packets to the real IMDS.
//!
//! `--host-interface` may match interfaces to the node's network (`!eth0` matches a second one), where replies of the
//! real IMDS to the node arrive. So the route is looked up, as strict reverse-path filtering does, which the kernel has
//! for IPv4 only.

use super::packet::Destination;
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup as Lookup,
        bpf_fib_lookup__bindgen_ty_1, bpf_fib_lookup__bindgen_ty_2, bpf_fib_lookup__bindgen_ty_3,
        bpf_fib_lookup__bindgen_ty_4, bpf_fib_lookup__bindgen_ty_5,
    },
    helpers::bpf_fib_lookup,
    programs::TcContext,
};
use kiam_ebpf::net::{AF_INET, AF_INET6, IMDS_V4_WORD, IMDS_V6_WORDS};

/// Returns whether the node's route to the IMDS, from its address `node`, leaves by this interface.
#[inline(always)]
pub fn uses_interface(ctx: &TcContext, interface: u32, node: &Destination) -> bool {
    let (family, source, imds) = match *node {
        Destination::V4(address) => (AF_INET, [address, 0, 0, 0], [IMDS_V4_WORD, 0, 0, 0]),
        Destination::V6(address) => (AF_INET6, address, IMDS_V6_WORDS),
    };
    let mut lookup = Lookup {
        family: family as u8,
        l4_protocol: 0,
        sport: 0,
        dport: 0,
        __bindgen_anon_1: bpf_fib_lookup__bindgen_ty_1 { tot_len: 0 },
        ifindex: interface,
        __bindgen_anon_2: bpf_fib_lookup__bindgen_ty_2 { flowinfo: 0 },
        // An IPv4 address is the first word.
        __bindgen_anon_3: bpf_fib_lookup__bindgen_ty_3 { ipv6_src: source },
        __bindgen_anon_4: bpf_fib_lookup__bindgen_ty_4 { ipv6_dst: imds },
        __bindgen_anon_5: bpf_fib_lookup__bindgen_ty_5 { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    let length = size_of::<Lookup>() as i32;
    // Looked up as a packet of the node itself (`iif lo`), to which the fence does not apply.
    // SAFETY: the verifier checks the arguments.
    let found = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut lookup, length, BPF_FIB_LOOKUP_OUTPUT) };
    // The codes after FWD_DISABLED mean a route with a problem, for instance without a neighbour. FWD_DISABLED means
    // that the interface does not forward and no lookup was made: then it is no uplink. For IPv6 the route may use
    // another interface.
    let has_route = found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) || found > i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED);
    has_route && lookup.ifindex == interface
}

//! The kernel programs of kiam: `programs.rs` lists them.
//!
//! On the host this is an empty program, so that the whole workspace builds without the BPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    allow(unsafe_code, missing_docs, unreachable_pub, reason = "helpers are unsafe, entry points are exported")
)]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

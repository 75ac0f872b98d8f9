//! The decisions of the kernel programs that need no kernel: plain functions, tested on the host.
#![cfg_attr(not(test), no_std)]

pub mod net;
pub mod source;

//! The parts of the kernel programs that need no kernel: constants and plain functions, tested on the host.
#![cfg_attr(not(test), no_std)]

pub mod net;
pub mod source;

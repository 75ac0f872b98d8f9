//! The map types as `aya::Pod`: this crate's only `unsafe`.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait; sizes and padding are asserted beside the types")]

use super::{Address, Counters};

// SAFETY: `repr(C)`, 16 bytes, every bit pattern valid, no padding (asserted in `abi`).
unsafe impl aya::Pod for Address {}
// SAFETY: `repr(C)`, an array of u64, every bit pattern valid, no padding (asserted in `abi`).
unsafe impl aya::Pod for Counters {}

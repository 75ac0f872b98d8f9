//! The map types as `aya::Pod`: this crate's only `unsafe`.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait; sizes and padding are asserted next to the types")]

use super::{Address, Config, Counters, Flow, FlowKey, Owner, Port, Ring, RingPart};

// SAFETY: this type and those below are `repr(C)` and consist of integers and arrays of integers, so every bit pattern
// is valid. They have no padding, which is asserted next to each type.
unsafe impl aya::Pod for Address {}
// SAFETY: as above.
unsafe impl aya::Pod for Config {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RingPart {}
// SAFETY: as above.
unsafe impl aya::Pod for Port {}
// SAFETY: as above.
unsafe impl aya::Pod for Owner {}
// SAFETY: as above.
unsafe impl aya::Pod for Ring {}

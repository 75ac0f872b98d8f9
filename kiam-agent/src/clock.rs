//! The kernel's clocks that cannot be set, and so never run backwards.

use rustix::time::{ClockId, clock_gettime};

/// Returns milliseconds of `CLOCK_MONOTONIC`, which stops while the node sleeps. Used for ages of interfaces.
pub(crate) fn monotonic_ms() -> u64 {
    milliseconds(ClockId::Monotonic)
}

/// Returns milliseconds since boot (`CLOCK_BOOTTIME`), including sleep. Used for lifetimes of session tokens.
pub(crate) fn boottime_ms() -> u64 {
    milliseconds(ClockId::Boottime)
}

fn milliseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither clock is ever negative.
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
}

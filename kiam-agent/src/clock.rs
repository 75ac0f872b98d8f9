//! The kernel's clocks. Neither can be set, so neither can be turned back.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_MONOTONIC`, which stands still while the node sleeps: ages of interfaces.
pub(crate) fn monotonic_ms() -> u64 {
    milliseconds(ClockId::Monotonic)
}

/// Milliseconds since the node was booted (`CLOCK_BOOTTIME`), sleep included: lives of session tokens.
pub(crate) fn boottime_ms() -> u64 {
    milliseconds(ClockId::Boottime)
}

fn milliseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither clock is ever negative.
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
}

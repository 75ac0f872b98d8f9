//! Backoff after a failed fetch, by class and number of failures.

use crate::core::provider::FailureClass;
use std::time::Duration;

/// Backoff after a failed fetch.
pub(super) struct Backoff {
    /// Time during which requests get the error.
    pub(super) answer: Duration,
    /// Time until the next fetch in the background.
    pub(super) retry: Duration,
}

impl Backoff {
    /// Returns the backoff after the given number of failures in a row. `jitter` is from -1 to 1.
    pub(super) fn after(class: FailureClass, failures: u32, jitter: f64) -> Self {
        let doubled = |first: u64, max: u64| {
            Duration::from_secs(first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max))
        };
        let (answer, retry) = match class {
            // An operator may be fixing the role's trust policy: requests notice within a minute.
            FailureClass::AccessDenied | FailureClass::Other => (Duration::from_secs(45), doubled(45, 900)),
            FailureClass::Throttled => (doubled(2, 60), doubled(4, 120)),
            FailureClass::Transient => (doubled(1, 10), doubled(1, 30)),
        };
        let spread = 1.0 + jitter.clamp(-1.0, 1.0) / 3.0;
        let (answer, retry) = (answer.mul_f64(spread), retry.mul_f64(spread));
        Self { answer, retry: retry.max(answer) }
    }
}

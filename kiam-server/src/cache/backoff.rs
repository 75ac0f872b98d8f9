//! How long a failure is left alone, by what kind it was and how often it came.

use crate::core::provider::FailureClass;
use std::time::Duration;

/// How long a failure is left alone.
pub(super) struct Backoff {
    /// For this long it is the answer to whoever asks.
    pub(super) answer: Duration,
    /// After this long we try again by ourselves.
    pub(super) retry: Duration,
}

impl Backoff {
    pub(super) fn after(class: FailureClass, failures: u32, jitter: f64) -> Self {
        let doubled = |first: u64, most: u64| {
            Duration::from_secs(first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most))
        };
        let (answer, retry) = match class {
            // Somebody may be mending the role's trust right now: whoever asks learns of it within a minute.
            FailureClass::AccessDenied | FailureClass::Other => (Duration::from_secs(45), doubled(45, 900)),
            FailureClass::Throttled => (doubled(2, 60), doubled(4, 120)),
            FailureClass::Transient => (doubled(1, 10), doubled(1, 30)),
        };
        let spread = 1.0 + jitter.clamp(-1.0, 1.0) / 3.0;
        let (answer, retry) = (answer.mul_f64(spread), retry.mul_f64(spread));
        Self { answer, retry: retry.max(answer) }
    }
}

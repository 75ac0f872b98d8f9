//! Backoff of a watch that fails.

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;
use tokio::time::Instant;

/// Shortest delay after an error.
const DELAY_MIN: Duration = Duration::from_millis(500);
/// Longest delay after an error.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// An error that follows the last one by more than this starts again at [`DELAY_MIN`].
const RESET_AFTER: Duration = Duration::from_secs(90);

/// Delays that grow while errors follow one another. They are reset by time and not by events: every attempt to list
/// begins with an event, so an event does not mean that the watch has recovered.
#[derive(Debug, Default)]
pub struct Backoff {
    delays: Option<ExponentialBackoff>,
    last_error: Option<Instant>,
}

impl Backoff {
    /// Returns the delay before the next attempt, for an error at `now`.
    pub fn next(&mut self, now: Instant) -> Duration {
        if self.last_error.is_none_or(|last| now.duration_since(last) > RESET_AFTER) {
            self.delays = None;
        }
        self.last_error = Some(now);
        let builder = ExponentialBuilder::default()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .without_max_times()
            .with_jitter();
        self.delays.get_or_insert_with(|| builder.build()).next().unwrap_or(DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn delays_grow_until_errors_pause() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let delays: Vec<Duration> = (0..10).map(|second| backoff.next(start + Duration::from_secs(second))).collect();
        // Jitter adds up to the delay itself.
        assert!(delays[0] <= 2 * DELAY_MIN && delays[9] >= DELAY_MAX, "{delays:?}");
        assert!(backoff.next(start + Duration::from_secs(10) + RESET_AFTER) <= 2 * DELAY_MIN);
    }
}

//! The pauses of a watch that fails.

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;
use tokio::time::Instant;

/// First pause after an error.
const DELAY_MIN: Duration = Duration::from_millis(500);
/// Longest pause after an error.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// An error after this long is the first of a new row.
const RESET_AFTER: Duration = Duration::from_secs(90);

/// Pauses that grow while errors follow one another. Events don't tell that it goes well again: each attempt to list
/// begins with one.
#[derive(Debug, Default)]
pub struct Backoff {
    growing: Option<ExponentialBackoff>,
    last: Option<Instant>,
}

impl Backoff {
    /// How long to wait now that an error has come.
    pub fn next(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) > RESET_AFTER) {
            self.growing = None;
        }
        self.last = Some(now);
        let begin = ExponentialBuilder::default()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .without_max_times()
            .with_jitter();
        self.growing.get_or_insert_with(|| begin.build()).next().unwrap_or(DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_until_it_was_calm() {
        let (mut pauses, start) = (Backoff::default(), Instant::now());
        let row: Vec<Duration> = (0..10).map(|second| pauses.next(start + Duration::from_secs(second))).collect();
        // Jitter adds up to the pause itself.
        assert!(row[0] <= 2 * DELAY_MIN && row[9] >= DELAY_MAX, "{row:?}");
        assert!(pauses.next(start + Duration::from_secs(10) + RESET_AFTER) <= 2 * DELAY_MIN);
    }
}

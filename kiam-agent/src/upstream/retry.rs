//! Retries of one request until its deadline: for a pod that the server does not know yet, or a call that was lost.

use crate::source::SourceError;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First pause: the watch that reports a new pod to the server lags about this much.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Longest pause: a dozen calls in a pod's 900 ms.
const BACKOFF_MAX: Duration = Duration::from_millis(150);
/// Time reserved for the last call.
const LAST_CALL_TIME: Duration = Duration::from_millis(20);

/// The deadline and backoff of one request of a pod.
pub(super) struct Retry {
    deadline: Instant,
    backoff: ExponentialBackoff,
}

impl Retry {
    pub(super) fn new(deadline: Instant) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(BACKOFF_MIN).with_max_delay(BACKOFF_MAX).with_factor(1.5);
        Self { deadline, backoff: builder.with_jitter().without_max_times().build() }
    }

    /// Pauses before another call, or returns `error` if the deadline leaves no time for one.
    pub(super) async fn pause_or(&mut self, error: SourceError) -> Result<(), SourceError> {
        let pause = self.backoff.next().unwrap_or(BACKOFF_MAX);
        if Instant::now() + pause + LAST_CALL_TIME >= self.deadline {
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }
}

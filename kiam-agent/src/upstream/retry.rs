//! Pauses between two tries of one request: for a pod that the server does not know yet, or a call that got lost.

use crate::source::SourceError;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First pause: the watch that brings a new pod to the server is about this far behind.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause: a dozen questions in a pod's 900 ms.
const PAUSE_MAX: Duration = Duration::from_millis(150);
/// Kept back for the last answer's way.
const MARGIN: Duration = Duration::from_millis(20);

/// The pauses of one request of a pod.
pub(super) struct Retry {
    deadline: Instant,
    pauses: ExponentialBackoff,
}

impl Retry {
    pub(super) fn new(deadline: Instant) -> Self {
        let builder = ExponentialBuilder::new().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX).with_factor(1.5);
        Self { deadline, pauses: builder.with_jitter().without_max_times().build() }
    }

    /// Pauses; or gives `error` back when the deadline is too near for another question.
    pub(super) async fn pause_or(&mut self, error: SourceError) -> Result<(), SourceError> {
        let pause = self.pauses.next().unwrap_or(PAUSE_MAX);
        if Instant::now() + pause + MARGIN >= self.deadline {
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }
}

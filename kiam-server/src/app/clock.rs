//! The time of day.

use crate::core::provider::Clock;
use jiff::Timestamp;

/// The system's clock.
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

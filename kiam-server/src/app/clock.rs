//! The system clock.

use crate::core::provider::Clock;
use jiff::Timestamp;

/// The system clock.
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

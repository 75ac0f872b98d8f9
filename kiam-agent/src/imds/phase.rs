//! The phase of a connection (new, idle, reading a request's head, answering) and its deadline.
//!
//! Only the connection's task writes the phase. The cells are atomic because the search for the idlest connection reads
//! them.

use super::limits::{HEAD_TIME_MAX, IDLE_TIME_MAX, LINGER_TIME_MAX, REQUEST_TIME_MAX};
use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

const RESTING: u8 = 0;
const HEAD: u8 = 1;
const REQUEST: u8 = 2;
const ANSWERED: u8 = 3;
const LINGERING: u8 = 4;
const NEW: u8 = 5;

/// The phase of one connection.
#[derive(Debug)]
pub(crate) struct Phase {
    began: Instant,
    now: AtomicU8,
    /// Start of this phase, or of the head in a request's later phases: microseconds after `began`.
    since_us: AtomicU64,
}

impl Phase {
    /// Returns the phase of a new connection. Its start counts as the start of its first request, so that a silent
    /// client is as slow as one that sends little.
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, now: AtomicU8::new(NEW), since_us: AtomicU64::new(0) }
    }

    /// Records that bytes arrived.
    pub(crate) fn read(&self) {
        match self.now.load(Relaxed) {
            RESTING => self.enter(HEAD),
            NEW => self.now.store(HEAD, Relaxed),
            _ => {}
        }
    }

    /// Records that a request's head is complete.
    pub(crate) fn request(&self) {
        if self.now.load(Relaxed) == RESTING {
            // The head arrived together with the request before it.
            self.enter(HEAD);
        }
        self.now.store(REQUEST, Relaxed);
    }

    /// Records that the answer is ready to be sent.
    pub(crate) fn answered(&self) {
        self.now.store(ANSWERED, Relaxed);
    }

    /// Records that the kernel has taken all bytes to send.
    pub(crate) fn flushed(&self) {
        if self.now.load(Relaxed) == ANSWERED {
            self.enter(RESTING);
        }
    }

    /// Records that the last byte was sent.
    pub(crate) fn linger(&self) {
        if self.now.load(Relaxed) != LINGERING {
            self.enter(LINGERING);
        }
    }

    /// Returns the time at which the connection is ended if it stays in this phase.
    pub(crate) fn deadline(&self) -> Instant {
        let allowed = match self.now.load(Relaxed) {
            RESTING => IDLE_TIME_MAX,
            NEW | HEAD => HEAD_TIME_MAX,
            LINGERING => LINGER_TIME_MAX,
            _ => REQUEST_TIME_MAX,
        };
        self.began + Duration::from_micros(self.since_us.load(Relaxed)) + allowed
    }

    /// Returns the reason for metrics if the connection is ended in this phase.
    pub(crate) fn name(&self) -> &'static str {
        match self.now.load(Relaxed) {
            RESTING => "idle",
            NEW | HEAD => "slow-head",
            LINGERING => "slow-end",
            _ => "slow-request",
        }
    }

    /// Returns true between two requests, while nothing of the next one is read.
    pub(crate) fn is_resting(&self) -> bool {
        self.now.load(Relaxed) == RESTING
    }

    /// Returns the time since which the connection is idle; `None` if it is not idle.
    pub(crate) fn resting_since(&self) -> Option<Instant> {
        self.is_resting().then(|| self.began + Duration::from_micros(self.since_us.load(Relaxed)))
    }

    /// Returns the time at which the connection was accepted.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    fn enter(&self, phase: u8) {
        let since = Instant::now().saturating_duration_since(self.began).as_micros();
        self.since_us.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
        self.now.store(phase, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline() {
        let begin = Instant::now();
        let phase = Phase::new(begin);
        assert_eq!((phase.deadline(), phase.name()), (begin + HEAD_TIME_MAX, "slow-head"));

        advance(Duration::from_secs(1)).await;
        phase.read();
        assert_eq!((phase.deadline(), phase.name()), (begin + HEAD_TIME_MAX, "slow-head"));
        phase.request();
        // Bytes of a body or of the next request do not change the phase.
        phase.read();
        assert_eq!((phase.deadline(), phase.name()), (begin + REQUEST_TIME_MAX, "slow-request"));
        assert_eq!(phase.resting_since(), None);

        advance(Duration::from_secs(1)).await;
        phase.flushed();
        assert_eq!(phase.name(), "slow-request", "nothing was answered yet");
        phase.answered();
        assert_eq!(phase.deadline(), begin + REQUEST_TIME_MAX, "the answer counts as well");
        phase.flushed();
        let rest = begin + Duration::from_secs(2);
        assert_eq!((phase.deadline(), phase.name()), (rest + IDLE_TIME_MAX, "idle"));
        assert_eq!((phase.resting_since(), phase.is_resting()), (Some(rest), true));

        advance(Duration::from_secs(9)).await;
        phase.read();
        let head = rest + Duration::from_secs(9);
        assert_eq!((phase.deadline(), phase.name()), (head + HEAD_TIME_MAX, "slow-head"));
        assert!(!phase.is_resting());
        phase.read();
        assert_eq!(phase.deadline(), head + HEAD_TIME_MAX, "a byte now and then gains nothing");

        phase.linger();
        advance(Duration::from_millis(1)).await;
        phase.linger();
        assert_eq!((phase.deadline(), phase.name()), (head + LINGER_TIME_MAX, "slow-end"));
    }

    /// A pipelined request gets its full time, counted from the end of the request before it.
    #[tokio::test(start_paused = true)]
    async fn pipelined_request_starts_when_the_one_before_ends() {
        let phase = Phase::new(Instant::now());
        phase.request();
        phase.answered();
        phase.flushed();
        advance(Duration::from_secs(3)).await;
        phase.request();
        assert_eq!(phase.deadline(), Instant::now() + REQUEST_TIME_MAX);
    }
}

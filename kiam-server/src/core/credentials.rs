//! Temporary credentials, and the time to refresh them.

use super::{ids::ExternalId, ids::RoleArn, session::SessionName};
use jiff::{SignedDuration, Timestamp};
use kiam_common::secret::Secret;
use std::time::Duration;

/// The parameters of an AssumeRole call. Pods with the same identity share credentials; other pods never do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Identity {
    pub(crate) role: RoleArn,
    pub(crate) session: SessionName,
    pub(crate) external_id: Option<ExternalId>,
}

/// Credentials issued by STS for an identity.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Not a secret: AWS logs it.
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret<String>,
    pub(crate) session_token: Secret<String>,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

/// Time of a refresh, measured back from the expiration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RefreshAhead {
    /// Half of the lifetime.
    HalfLife,
    /// A fixed time before the expiration (`--session-refresh`).
    Fixed(Duration),
}

impl Credentials {
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.expires
    }

    /// Returns the remaining lifetime; zero once expired.
    pub(crate) fn remaining_at(&self, now: Timestamp) -> Duration {
        positive(self.expires.duration_since(now))
    }

    /// Returns the time of the refresh. `jitter`, from -1 to 1, moves it by up to a tenth of the lifetime that remains
    /// then, so that identities fetched together are not refreshed together.
    pub(crate) fn refresh_at(&self, ahead: RefreshAhead, jitter: f64) -> Timestamp {
        let life = positive(self.expires.duration_since(self.issued));
        let ahead = match ahead {
            RefreshAhead::HalfLife => life / 2,
            // STS may issue a shorter session than requested.
            RefreshAhead::Fixed(ahead) => ahead.min(life / 10 * 9),
        };
        let ahead = ahead.mul_f64(1.0 + jitter.clamp(-1.0, 1.0) / 10.0).min(life);
        let after = SignedDuration::try_from(life.saturating_sub(ahead)).unwrap_or(SignedDuration::ZERO);
        self.issued.saturating_add(after).unwrap_or(self.expires)
    }
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_an_hour() -> Credentials {
        Credentials {
            access_key_id: "ASIA".to_owned(),
            secret_access_key: Secret::new("hush".to_owned()),
            session_token: Secret::new("hush".to_owned()),
            issued: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires: "2026-01-01T01:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn refresh_points() {
        let fixed = |minutes: u64| RefreshAhead::Fixed(Duration::from_secs(minutes * 60));
        for (ahead, jitter, at) in [
            (RefreshAhead::HalfLife, 0.0, "2026-01-01T00:30:00Z"),
            (RefreshAhead::HalfLife, 1.0, "2026-01-01T00:27:00Z"),
            (RefreshAhead::HalfLife, -1.0, "2026-01-01T00:33:00Z"),
            (fixed(5), 0.0, "2026-01-01T00:55:00Z"),
            (fixed(5), 1.0, "2026-01-01T00:54:30Z"),
            (fixed(120), 0.0, "2026-01-01T00:06:00Z"),
        ] {
            let refresh: Timestamp = at.parse().unwrap();
            assert_eq!(of_an_hour().refresh_at(ahead, jitter), refresh, "{ahead:?} {jitter}");
        }
    }

    #[test]
    fn credentials_are_invalid_at_their_expiration() {
        let credentials = of_an_hour();
        let last = "2026-01-01T00:59:59.999Z".parse().unwrap();
        assert!(credentials.is_valid_at(last) && !credentials.is_valid_at(credentials.expires));
        assert_eq!(credentials.remaining_at("2027-01-01T00:00:00Z".parse().unwrap()), Duration::ZERO);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", of_an_hour()).contains("hush"));
    }
}

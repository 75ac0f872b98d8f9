//! Credentials from AWS, and their lifetime.

use crate::{args::AwsArgs, aws::AwsSettings, cache, core::credentials::RefreshAhead};
use kiam_common::flags::{self, Problems};
use std::{path::PathBuf, time::Duration};

/// Bounds of a session's duration (STS API reference, AssumeRole: `DurationSeconds`).
const SESSION_DURATION_BOUNDS: (Duration, Duration) = (Duration::from_secs(15 * 60), Duration::from_secs(12 * 3600));
/// Longest session of a role that was assumed by a role (IAM user guide, "Role chaining").
const CHAINED_SESSION_DURATION_MAX: Duration = Duration::from_secs(3600);
/// Below this, some SDKs renew credentials with every request: they do so in the last 15 minutes of a session.
const SESSION_DURATION_ADVISED_MIN: Duration = Duration::from_secs(45 * 60);
/// Shortest time between a refresh and the expiration.
const REFRESH_AHEAD_MIN: Duration = Duration::from_secs(60);
/// Most concurrent fetches: STS allows 600 calls a second for an account.
const FETCHERS_MAX: usize = 128;
/// Longest queue of messages to the cache.
const PREFETCH_BUFFER_MAX: usize = 1_000_000;

/// Settings of AWS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AwsConfig {
    pub(crate) settings: AwsSettings,
    pub(crate) session_duration: Duration,
    /// A role in the form of pods' annotations; resolved once the base ARN is known.
    pub(crate) assume_role: Option<String>,
    pub(crate) cache: cache::Settings,
}

impl TryFrom<AwsArgs> for AwsConfig {
    type Error = Problems;

    fn try_from(args: AwsArgs) -> Result<Self, Problems> {
        let AwsArgs {
            session_duration,
            session_refresh,
            assume_role_arn,
            region,
            sts_endpoint,
            sts_ca,
            fetchers,
            prefetch_buffer_size,
        } = args;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut problems = Problems::default();
        let assume_role = given(assume_role_arn);
        let life = duration(&mut problems, &session_duration, assume_role.is_some());
        let ahead = refresh(&mut problems, session_refresh.as_deref(), life);
        let region = problems.optional("--region", region.as_deref(), parse_region);
        let sts_endpoint = problems.optional("--sts-endpoint", sts_endpoint.as_deref(), parse_url);
        let fetchers = problems.value("--fetchers", &fetchers, |text| number(text, FETCHERS_MAX));
        let buffer =
            problems.value("--prefetch-buffer-size", &prefetch_buffer_size, |text| number(text, PREFETCH_BUFFER_MAX));
        match (life, ahead, region, sts_endpoint, fetchers, buffer) {
            (Some(session_duration), Some(ahead), Some(region), Some(sts_endpoint), Some(fetchers), Some(buffer)) => {
                let settings = AwsSettings { region, sts_endpoint, sts_ca: given(sts_ca).map(PathBuf::from) };
                let cache = cache::Settings { fetchers, buffer, ahead };
                Ok(Self { settings, session_duration, assume_role, cache })
            }
            _ => Err(problems),
        }
    }
}

impl AwsConfig {
    /// Returns a warning about a value that is allowed, but unwise.
    pub(super) fn notice(&self) -> Option<String> {
        (self.session_duration < SESSION_DURATION_ADVISED_MIN).then(|| {
            format!(
                "--session-duration={}: SDKs renew credentials with less than 15 minutes left, so short sessions cause \
                 many requests and slow down pods; the default is 60m",
                humantime::format_duration(self.session_duration)
            )
        })
    }
}

fn duration(problems: &mut Problems, text: &str, chained: bool) -> Option<Duration> {
    let life = problems.value("--session-duration", text, |text| {
        flags::duration(text, SESSION_DURATION_BOUNDS.0, SESSION_DURATION_BOUNDS.1)
    })?;
    if chained && life > CHAINED_SESSION_DURATION_MAX {
        let why = "not more than 1h with --assume-role-arn: the limit of AWS for a role that was assumed by a role";
        problems.add("--session-duration", Some(text), why.to_owned());
        return None;
    }
    Some(life)
}

fn refresh(problems: &mut Problems, text: Option<&str>, life: Option<Duration>) -> Option<RefreshAhead> {
    // Without a valid duration there is no tighter bound, and that problem has already been reported.
    let most = life.unwrap_or(SESSION_DURATION_BOUNDS.1).saturating_sub(REFRESH_AHEAD_MIN);
    let parse = |text: &str| {
        flags::duration(text, REFRESH_AHEAD_MIN, most)
            .map_err(|error| format!("{error} (it must end before the session)"))
    };
    let ahead = problems.optional("--session-refresh", text, parse)?;
    Some(ahead.map_or(RefreshAhead::HalfLife, RefreshAhead::Fixed))
}

fn parse_region(text: &str) -> Result<String, &'static str> {
    let good =
        text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if good { Ok(text.to_owned()) } else { Err("not a region, like eu-west-1") }
}

fn parse_url(text: &str) -> Result<String, &'static str> {
    let uri: http::Uri = text.parse().map_err(|_not_a_uri| "not a URL")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https" | "http"), Some(_)) => Ok(text.to_owned()),
        _ => Err("not a URL like https://sts.eu-west-1.amazonaws.com"),
    }
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {most}")),
    }
}

//! Configuration of the connection to the server.

use crate::args::UpstreamArgs;
use kiam_common::{
    flags::{self, Problems, ServerAddress},
    tls::TlsFiles,
};
use std::time::Duration;

/// Shortest interval between checks of an idle connection: ten thousand agents share three servers.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_millis(500);
/// Longest such interval: a dead server can stay unnoticed for this long while no pod sends a request.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(3600);
/// Shortest time limit of a check: with less, a busy server counts as dead.
const KEEPALIVE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Longest time limit of a check: pods give up long before.
const KEEPALIVE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Configuration of the connection to the server.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamConfig {
    pub(crate) server: ServerAddress,
    pub(crate) tls: TlsFiles,
    /// Interval between checks of an idle connection.
    pub(crate) keepalive_time: Duration,
    /// Time limit of such a check.
    pub(crate) keepalive_timeout: Duration,
}

impl TryFrom<UpstreamArgs> for UpstreamConfig {
    type Error = Problems;

    fn try_from(args: UpstreamArgs) -> Result<Self, Problems> {
        let UpstreamArgs {
            server_address,
            tls,
            grpc_keepalive_time_duration: time,
            grpc_keepalive_timeout_duration: timeout,
            grpc_keepalive_time_ms: time_ms,
            grpc_keepalive_timeout_ms: timeout_ms,
        } = args;
        let mut problems = Problems::default();
        let server = problems.value("--server-address", &server_address, flags::server_address);
        let tls = problems.section(TlsFiles::try_from(tls));
        let time = problems.value("--grpc-keepalive-time-duration", &time, time_duration);
        let time_ms = problems.optional("--grpc-keepalive-time-ms", time_ms.as_deref(), time_milliseconds);
        let timeout = problems.value("--grpc-keepalive-timeout-duration", &timeout, timeout_duration);
        let timeout_ms = problems.optional("--grpc-keepalive-timeout-ms", timeout_ms.as_deref(), timeout_milliseconds);
        let config = || {
            let (keepalive_time, keepalive_timeout) = (time_ms?.unwrap_or(time?), timeout_ms?.unwrap_or(timeout?));
            Some(Self { server: server?, tls: tls?, keepalive_time, keepalive_timeout })
        };
        config().ok_or(problems)
    }
}

fn time_duration(text: &str) -> Result<Duration, String> {
    flags::duration(text, KEEPALIVE_TIME_MIN, KEEPALIVE_TIME_MAX)
}

fn time_milliseconds(text: &str) -> Result<Duration, String> {
    flags::milliseconds(text, KEEPALIVE_TIME_MIN, KEEPALIVE_TIME_MAX)
}

fn timeout_duration(text: &str) -> Result<Duration, String> {
    flags::duration(text, KEEPALIVE_TIMEOUT_MIN, KEEPALIVE_TIMEOUT_MAX)
}

fn timeout_milliseconds(text: &str) -> Result<Duration, String> {
    flags::milliseconds(text, KEEPALIVE_TIMEOUT_MIN, KEEPALIVE_TIMEOUT_MAX)
}

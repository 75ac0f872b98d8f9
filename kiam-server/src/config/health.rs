//! Configuration of `kiam-server health`.

use super::LogConfig;
use crate::args::HealthArgs;
use kiam_common::{
    flags::{self, Problems, ServerAddress},
    tls::TlsFiles,
};
use std::time::Duration;

/// Bounds of the time-outs; the kubelet's own limit is seconds.
const TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Configuration of `kiam-server health`.
#[derive(Debug)]
pub(crate) struct HealthConfig {
    pub(crate) log: LogConfig,
    pub(crate) tls: TlsFiles,
    pub(crate) server: ServerAddress,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl TryFrom<HealthArgs> for HealthConfig {
    type Error = Problems;

    fn try_from(args: HealthArgs) -> Result<Self, Problems> {
        let HealthArgs { log, tls, server_address, timeout, gateway_timeout_creation, .. } = args;
        let mut problems = Problems::default();
        let log = problems.section(LogConfig::try_from(log));
        let tls = problems.section(TlsFiles::try_from(tls));
        let server = problems.value("--server-address", &server_address, flags::server_address);
        let mut wait = |name, text: &str| {
            problems.value(name, text, |text| flags::duration(text, TIMEOUT_BOUNDS.0, TIMEOUT_BOUNDS.1))
        };
        let timeout = wait("--timeout", &timeout);
        let connect_timeout = wait("--gateway-timeout-creation", &gateway_timeout_creation);
        match (log, tls, server, timeout, connect_timeout) {
            (Some(log), Some(tls), Some(server), Some(timeout), Some(connect_timeout)) => {
                Ok(Self { log, tls, server, timeout, connect_timeout })
            }
            _ => Err(problems),
        }
    }
}

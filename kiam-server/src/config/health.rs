//! Of `kiam-server health`.

use super::{LogConfig, tls_files};
use crate::args::HealthArgs;
use kiam_common::{
    flags::{self, Problems},
    tls::TlsFiles,
};
use std::time::Duration;

/// Longest that a probe may wait; the kubelet's own limit is seconds.
const WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Which server to ask, and how long.
#[derive(Debug)]
pub(crate) struct HealthConfig {
    pub(crate) log: LogConfig,
    pub(crate) tls: TlsFiles,
    pub(crate) server: ServerAddress,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

/// A name and a port. The name is what the server's certificate must carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl TryFrom<HealthArgs> for HealthConfig {
    type Error = Problems;

    fn try_from(args: HealthArgs) -> Result<Self, Problems> {
        let HealthArgs { log, tls, server_address, timeout, gateway_timeout_creation, .. } = args;
        let mut problems = Problems::default();
        let log = problems.section(LogConfig::try_from(log));
        let tls = problems.section(tls_files(tls));
        let server = problems.value("--server-address", &server_address, parse_address);
        let mut wait = |name, text: &str| problems.value(name, text, |text| flags::duration(text, WAIT.0, WAIT.1));
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

fn parse_address(text: &str) -> Result<ServerAddress, &'static str> {
    const WRONG: &str = "not a server's address, like kiam-server:9610";
    let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(WRONG);
    }
    Ok(ServerAddress { host: host.to_owned(), port: flags::port(port)? })
}

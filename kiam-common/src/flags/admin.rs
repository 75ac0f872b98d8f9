//! The flags of the admin endpoint.

use super::{Problems, listen_address, port};
use clap::Args;
use std::net::SocketAddr;

/// The flags of the admin endpoint, as typed. `PORT` is the default of `--port`; `METRICS` is the port of the example
/// for `--prometheus-listen-addr`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Health and metrics")]
pub struct AdminArgs<const PORT: u16, const METRICS: u16> {
    /// Port of /ping, /health and /metrics, on loopback only.
    #[arg(long, env = "KIAM_PORT", default_value = PORT.to_string(), value_name = "PORT")]
    pub port: String,
    /// Additional address of /metrics.
    #[arg(long, env = "KIAM_PROMETHEUS_LISTEN_ADDR", value_name = "ADDRESS:PORT")]
    #[arg(help = format!("Additional address of /metrics, for example 0.0.0.0:{METRICS}"))]
    pub prometheus_listen_addr: Option<String>,
}

/// Addresses of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Port of `/ping`, `/health` and `/metrics` on loopback.
    pub port: u16,
    /// Additional address of `/metrics`.
    pub prometheus: Option<SocketAddr>,
}

impl<const PORT: u16, const METRICS: u16> TryFrom<AdminArgs<PORT, METRICS>> for AdminConfig {
    type Error = Problems;

    fn try_from(args: AdminArgs<PORT, METRICS>) -> Result<Self, Problems> {
        let AdminArgs { port: own, prometheus_listen_addr } = args;
        let mut problems = Problems::default();
        let own = problems.value("--port", &own, port);
        let prometheus =
            problems.optional("--prometheus-listen-addr", prometheus_listen_addr.as_deref(), listen_address);
        match (own, prometheus) {
            (Some(port), Some(prometheus)) => Ok(Self { port, prometheus }),
            _ => Err(problems),
        }
    }
}

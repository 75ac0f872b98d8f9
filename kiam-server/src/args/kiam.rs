//! Flags of kiam that have no effect here: accepted, so that a manifest of kiam's works, and explained in the log.

use clap::Args;

/// kiam's flags without an effect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of kiam, without an effect")]
pub(crate) struct KiamArgs {
    /// The watch needs no resync.
    #[arg(long, env = "KIAM_SYNC", value_name = "DURATION", hide = true)]
    pub(crate) sync: Option<String>,
    /// Idle connections are checked, and all are ended at their age.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_IDLE_DURATION", value_name = "DURATION", hide = true)]
    pub(crate) grpc_max_connection_idle_duration: Option<String>,
    /// Metrics are made when they are asked for.
    #[arg(long, env = "KIAM_PROMETHEUS_SYNC_INTERVAL", value_name = "DURATION", hide = true)]
    pub(crate) prometheus_sync_interval: Option<String>,
    /// A Go profiler's address.
    #[arg(long, env = "KIAM_PPROF_LISTEN_ADDR", value_name = "ADDRESS:PORT", hide = true)]
    pub(crate) pprof_listen_addr: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD", value_name = "ADDRESS:PORT", hide = true)]
    pub(crate) statsd: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD_PREFIX", value_name = "TEXT", hide = true)]
    pub(crate) statsd_prefix: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD_INTERVAL", value_name = "DURATION", hide = true)]
    pub(crate) statsd_interval: Option<String>,
}

impl KiamArgs {
    /// A line for each of them that was given.
    pub(crate) fn notices(&self) -> Vec<String> {
        let Self {
            sync,
            grpc_max_connection_idle_duration,
            prometheus_sync_interval,
            pprof_listen_addr,
            statsd,
            statsd_prefix,
            statsd_interval,
        } = self;
        const PROMETHEUS: &str = "metrics are Prometheus's: --prometheus-listen-addr";
        let table = [
            ("--sync", sync, "the watch tells every change, so nothing is synced again"),
            (
                "--grpc-max-connection-idle-duration",
                grpc_max_connection_idle_duration,
                "idle connections are checked, and all are ended by --grpc-max-connection-age-duration",
            ),
            ("--prometheus-sync-interval", prometheus_sync_interval, "metrics are made when they are asked for"),
            ("--pprof-listen-addr", pprof_listen_addr, "there is no Go profiler; use perf on the process"),
            ("--statsd", statsd, PROMETHEUS),
            ("--statsd-prefix", statsd_prefix, PROMETHEUS),
            ("--statsd-interval", statsd_interval, PROMETHEUS),
        ];
        let given = table.iter().filter(|(_, value, _)| value.is_some());
        given.map(|(flag, _, why)| format!("{flag} has no effect: {why}")).collect()
    }
}

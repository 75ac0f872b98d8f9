//! Flags of kiam that have no effect here: accepted, so that a manifest of kiam's works, and explained in the log.

use clap::Args;

/// A flag without effect: its name with dashes, its value if given, and the reason.
pub type Ignored<'a> = (&'static str, &'a Option<String>, &'static str);

/// The flags without effect that kiam's agent and server share.
#[derive(Debug, Args)]
pub struct IgnoredArgs {
    /// Metrics are generated on each request.
    #[arg(long, env = "KIAM_PROMETHEUS_SYNC_INTERVAL", value_name = "DURATION", hide = true)]
    prometheus_sync_interval: Option<String>,
    /// Address of a Go profiler.
    #[arg(long, env = "KIAM_PPROF_LISTEN_ADDR", value_name = "ADDRESS:PORT", hide = true)]
    pprof_listen_addr: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD", value_name = "ADDRESS:PORT", hide = true)]
    statsd: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD_PREFIX", value_name = "TEXT", hide = true)]
    statsd_prefix: Option<String>,
    /// kiam 3 only.
    #[arg(long, env = "KIAM_STATSD_INTERVAL", value_name = "DURATION", hide = true)]
    statsd_interval: Option<String>,
}

impl IgnoredArgs {
    /// Returns a line for each given flag, of the binary's `own` and of these.
    #[must_use]
    pub fn notices(&self, own: &[Ignored<'_>]) -> Vec<String> {
        const PROMETHEUS: &str = "metrics are in Prometheus format; see --prometheus-listen-addr";
        let Self { prometheus_sync_interval, pprof_listen_addr, statsd, statsd_prefix, statsd_interval } = self;
        let shared = [
            ("--prometheus-sync-interval", prometheus_sync_interval, "metrics are generated on each request"),
            ("--pprof-listen-addr", pprof_listen_addr, "there is no Go profiler; use perf on the process"),
            ("--statsd", statsd, PROMETHEUS),
            ("--statsd-prefix", statsd_prefix, PROMETHEUS),
            ("--statsd-interval", statsd_interval, PROMETHEUS),
        ];
        let given = own.iter().chain(&shared).filter(|(_, value, _)| value.is_some());
        given.map(|(flag, _, why)| format!("{flag} has no effect: {why}")).collect()
    }
}

//! Flags of kiam that have no effect here: accepted, so that a manifest of kiam's works, and explained in the log.

use clap::Args;
use kiam_common::flags::IgnoredArgs;

/// Flags of kiam without effect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flags of kiam without effect")]
pub(crate) struct KiamArgs {
    /// The watch needs no resync.
    #[arg(long, env = "KIAM_SYNC", value_name = "DURATION", hide = true)]
    pub(crate) sync: Option<String>,
    /// Idle connections are checked, and every connection is closed at its maximum age.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_IDLE_DURATION", value_name = "DURATION", hide = true)]
    pub(crate) grpc_max_connection_idle_duration: Option<String>,
    #[command(flatten)]
    pub(crate) shared: IgnoredArgs,
}

impl KiamArgs {
    /// Returns a line for each given flag.
    pub(crate) fn notices(&self) -> Vec<String> {
        let Self { sync, grpc_max_connection_idle_duration, shared } = self;
        shared.notices(&[
            ("--sync", sync, "the watch delivers every change, so there is no periodic sync"),
            (
                "--grpc-max-connection-idle-duration",
                grpc_max_connection_idle_duration,
                "idle connections are checked, and every connection is closed at --grpc-max-connection-age-duration",
            ),
        ])
    }
}

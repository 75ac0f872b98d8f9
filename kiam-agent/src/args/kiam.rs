//! Flags of kiam that have no effect here. They are accepted, so that manifests of kiam work, and explained in the log.

use clap::Args;
use kiam_common::flags::IgnoredArgs;

/// kiam's flags without effect. [`crate::config`] has the notice that each one produces.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flags of kiam without effect")]
pub(crate) struct KiamArgs {
    /// The agent redirects connections without iptables.
    #[arg(long, env = "KIAM_IPTABLES", default_missing_value = "true", hide = true)]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    pub(crate) iptables: Option<String>,
    /// See --iptables.
    #[arg(long, env = "KIAM_IPTABLES_REMOVE", default_missing_value = "true", hide = true)]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    pub(crate) iptables_remove: Option<String>,
    /// Connections are not translated, so no address is needed.
    #[arg(long, env = "HOST_IP", value_name = "ADDRESS", hide = true)]
    pub(crate) host: Option<String>,
    /// The server's name is resolved again at every reconnection.
    #[arg(long, env = "KIAM_SERVER_ADDRESS_REFRESH", value_name = "DURATION", hide = true)]
    pub(crate) server_address_refresh: Option<String>,
    /// The agent starts and stays up without a server.
    #[arg(long, env = "KIAM_GATEWAY_TIMEOUT_CREATION", value_name = "DURATION", hide = true)]
    pub(crate) gateway_timeout_creation: Option<String>,
    /// Idle connections are always checked, with a call that every server allows.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_PERMIT_WITHOUT_STREAM", default_missing_value = "true", hide = true)]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    pub(crate) grpc_keepalive_permit_without_stream: Option<String>,
    #[command(flatten)]
    pub(crate) shared: IgnoredArgs,
}

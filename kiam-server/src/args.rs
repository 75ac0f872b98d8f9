//! The command line as it was typed. What it means is decided in [`crate::config`], so that every bad value is reported
//! at once; here a value is text.
//!
//! kiam's flags keep their names, those of its version 3 too, and each can be set by an environment variable as well. A
//! flag on the command line wins.

mod kiam;

pub(crate) use kiam::KiamArgs;

use clap::{Args, Parser, Subcommand};
use kiam_common::flags::{self, AdminArgs, LogArgs, TlsArgs};
use std::ffi::OsString;

/// kiam's flags that are off or on: `--json-log`, `--json-log=false` and `--no-json-log` are all understood.
const SWITCHES: &[&str] = &[
    "json-log",
    "role-base-arn-autodetect",
    "disable-strict-namespace-regexp",
    "grpc-keepalive-permit-without-stream",
];

/// Watches pods, decides which role each may have, and fetches credentials for the agents.
#[derive(Debug, Parser)]
#[command(name = "kiam-server", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// What to do; none: run the server.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The server's own flags.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What `kiam-server` can do besides running.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a server whether it is healthy; exit code 0 when it is (for exec probes).
    Health(Box<HealthArgs>),
}

/// All flags of a running server.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs<9611, 9621>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) roles: RoleArgs,
    #[command(flatten)]
    pub(crate) aws: AwsArgs,
    #[command(flatten)]
    pub(crate) kiam: KiamArgs,
}

/// How agents are served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Agents")]
pub(crate) struct GrpcArgs {
    /// Where agents connect to.
    #[arg(long, env = "KIAM_BIND", default_value = "localhost:9610", value_name = "ADDRESS:PORT")]
    pub(crate) bind: String,
    /// How often an idle connection is checked.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_DURATION", default_value = "10s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_time_duration: String,
    /// How long an agent has for an answer to such a check.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_DURATION", default_value = "2s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_timeout_duration: String,
    /// A connection is ended after this long, so that agents find new servers.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_AGE_DURATION", default_value = "15m", value_name = "DURATION")]
    pub(crate) grpc_max_connection_age_duration: String,
    /// How long its last requests may take then.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_AGE_GRACE_DURATION", default_value = "15m", value_name = "DURATION")]
    pub(crate) grpc_max_connection_age_grace_duration: String,
    /// kiam 3's --grpc-keepalive-time-duration, in milliseconds.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_time_ms: Option<String>,
    /// kiam 3's --grpc-keepalive-timeout-duration, in milliseconds.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_timeout_ms: Option<String>,
}

/// How Kubernetes is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct ClusterArgs {
    /// Credentials for the Kubernetes API; none: those of our own pod.
    #[arg(long, env = "KIAM_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
}

/// Which role a pod may have.
#[derive(Debug, Args)]
#[command(next_help_heading = "Roles")]
pub(crate) struct RoleArgs {
    /// What stands in front of roles that are not ARNs: arn:aws:iam::123456789012:role/
    #[arg(long, env = "KIAM_ROLE_BASE_ARN", value_name = "ARN")]
    pub(crate) role_base_arn: Option<String>,
    /// Take the account of the EC2 instance that we run on for it.
    #[arg(long, env = "KIAM_ROLE_BASE_ARN_AUTODETECT", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) role_base_arn_autodetect: String,
    /// Let a namespace's regexp match anywhere in a role's ARN instead of all of it.
    #[arg(long, env = "KIAM_DISABLE_STRICT_NAMESPACE_REGEXP", default_value = "false")]
    #[arg(default_missing_value = "true", num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(hide_possible_values = true)]
    pub(crate) disable_strict_namespace_regexp: String,
    /// Name of the sessions of pods that don't name theirs; kiam- is put in front.
    #[arg(long, env = "KIAM_SESSION", default_value = "kiam", value_name = "NAME")]
    pub(crate) session: String,
}

/// How credentials are fetched.
#[derive(Debug, Args)]
#[command(next_help_heading = "AWS")]
pub(crate) struct AwsArgs {
    /// How long credentials live: 15m to 12h. Below an hour, SDKs ask more often.
    #[arg(long, env = "KIAM_SESSION_DURATION", default_value = "60m", value_name = "DURATION")]
    pub(crate) session_duration: String,
    /// How long before their end they are replaced [default: half of their life].
    #[arg(long, env = "KIAM_SESSION_REFRESH", value_name = "DURATION")]
    pub(crate) session_refresh: Option<String>,
    /// Take this role first, and the pods' roles with its credentials. Limits --session-duration to an hour.
    #[arg(long, env = "KIAM_ASSUME_ROLE_ARN", value_name = "ROLE")]
    pub(crate) assume_role_arn: Option<String>,
    /// Region whose STS is asked [default: that of the environment or the instance, else the global endpoint].
    #[arg(long, env = "KIAM_REGION", value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Ask STS at this URL instead: https://HOST
    #[arg(long, env = "KIAM_STS_ENDPOINT", value_name = "URL")]
    pub(crate) sts_endpoint: Option<String>,
    /// Certificate authorities to trust for AWS beside the system's, PEM.
    #[arg(long, env = "KIAM_STS_CA", value_name = "FILE")]
    pub(crate) sts_ca: Option<String>,
    /// Fetches ahead of need that may run at a time.
    #[arg(long, env = "KIAM_FETCHERS", default_value = "8", value_name = "NUMBER")]
    pub(crate) fetchers: String,
    /// Pods that may wait to be looked at.
    #[arg(long, env = "KIAM_PREFETCH_BUFFER_SIZE", default_value = "1000", value_name = "NUMBER")]
    pub(crate) prefetch_buffer_size: String,
}

/// Flags of `kiam-server health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Which server to ask; the host is the name that its certificate must carry.
    #[arg(long, env = "KIAM_SERVER_ADDRESS", default_value = "localhost:9610", value_name = "HOST:PORT")]
    pub(crate) server_address: String,
    /// How long to ask for, all in all.
    #[arg(long, env = "KIAM_TIMEOUT", default_value = "1s", value_name = "DURATION")]
    pub(crate) timeout: String,
    /// How long the connection may take to come about.
    #[arg(long, env = "KIAM_GATEWAY_TIMEOUT_CREATION", default_value = "1s", value_name = "DURATION")]
    pub(crate) gateway_timeout_creation: String,
    /// Without an effect: one call is made, and its own limits are --timeout and --gateway-timeout-creation.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) grpc_keepalive_time_duration: Option<String>,
    /// See --grpc-keepalive-time-duration.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) grpc_keepalive_timeout_duration: Option<String>,
    /// See --grpc-keepalive-time-duration.
    #[arg(long, value_name = "BOOL", hide = true)]
    #[arg(default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(crate) grpc_keepalive_permit_without_stream: Option<String>,
    /// Without an effect: the name is resolved for this one call.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) server_address_refresh: Option<String>,
}

/// Parses a command line, the program's name first. `--help` and `--version` are errors, too.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    flags::parse(argv, SWITCHES)
}

//! The command line as typed: every value is text. [`crate::config`] parses the values, so that all bad ones are
//! reported at once.
//!
//! kiam's flags keep their names, including those of version 3. Each can also be set by an environment variable; a flag
//! on the command line takes precedence.

mod kiam;

pub(crate) use kiam::KiamArgs;

use clap::{Args, Parser, Subcommand};
use kiam_common::flags::{self, AdminArgs, LogArgs, TlsArgs};
use std::ffi::OsString;

/// Boolean flags of kiam: `--json-log`, `--json-log=false` and `--no-json-log` are all accepted.
const SWITCHES: &[&str] = &[
    "json-log",
    "role-base-arn-autodetect",
    "disable-strict-namespace-regexp",
    "grpc-keepalive-permit-without-stream",
];

/// Watches pods, decides which role each pod may have, and serves credentials to the agents.
#[derive(Debug, Parser)]
#[command(name = "kiam-server", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// Subcommand; without one, the server runs.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Flags of the running server.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the health of a server, for exec probes. Exits 0 if it is healthy.
    Health(Box<HealthArgs>),
}

/// Flags of the running server.
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

/// The gRPC server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Agents")]
pub(crate) struct GrpcArgs {
    /// Address to listen on for agents.
    #[arg(long, env = "KIAM_BIND", default_value = "localhost:9610", value_name = "ADDRESS:PORT")]
    pub(crate) bind: String,
    /// Time after which an idle connection is checked.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_DURATION", default_value = "10s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_time_duration: String,
    /// Time after which an unanswered check closes the connection.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_DURATION", default_value = "2s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_timeout_duration: String,
    /// Age at which a connection is closed, so that agents discover new servers.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_AGE_DURATION", default_value = "15m", value_name = "DURATION")]
    pub(crate) grpc_max_connection_age_duration: String,
    /// Time for the pending requests of such a connection to finish.
    #[arg(long, env = "KIAM_GRPC_MAX_CONNECTION_AGE_GRACE_DURATION", default_value = "15m", value_name = "DURATION")]
    pub(crate) grpc_max_connection_age_grace_duration: String,
    /// The form of kiam 3, in milliseconds, of --grpc-keepalive-time-duration.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_time_ms: Option<String>,
    /// The form of kiam 3, in milliseconds, of --grpc-keepalive-timeout-duration.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_timeout_ms: Option<String>,
}

/// The Kubernetes API.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct ClusterArgs {
    /// Kubeconfig for the Kubernetes API [default: the ServiceAccount of this pod].
    #[arg(long, env = "KIAM_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
}

/// The rules for pods' roles.
#[derive(Debug, Args)]
#[command(next_help_heading = "Roles")]
pub(crate) struct RoleArgs {
    /// Prefix of roles that are not ARNs: arn:aws:iam::123456789012:role/
    #[arg(long, env = "KIAM_ROLE_BASE_ARN", value_name = "ARN")]
    pub(crate) role_base_arn: Option<String>,
    /// Detect --role-base-arn from the instance profile of the EC2 instance.
    #[arg(long, env = "KIAM_ROLE_BASE_ARN_AUTODETECT", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) role_base_arn_autodetect: String,
    /// Let a namespace's regexp match anywhere in a role's ARN, instead of the whole ARN.
    #[arg(long, env = "KIAM_DISABLE_STRICT_NAMESPACE_REGEXP", default_value = "false")]
    #[arg(default_missing_value = "true", num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(hide_possible_values = true)]
    pub(crate) disable_strict_namespace_regexp: String,
    /// Session name for pods without an annotation for it; kiam- is prepended.
    #[arg(long, env = "KIAM_SESSION", default_value = "kiam", value_name = "NAME")]
    pub(crate) session: String,
}

/// Credentials from AWS.
#[derive(Debug, Args)]
#[command(next_help_heading = "AWS")]
pub(crate) struct AwsArgs {
    /// Lifetime of credentials, 15m to 12h. Below one hour, SDKs send more requests.
    #[arg(long, env = "KIAM_SESSION_DURATION", default_value = "60m", value_name = "DURATION")]
    pub(crate) session_duration: String,
    /// Time before expiration at which credentials are refreshed [default: half of their lifetime].
    #[arg(long, env = "KIAM_SESSION_REFRESH", value_name = "DURATION")]
    pub(crate) session_refresh: Option<String>,
    /// Role to assume first; pods' roles are assumed with its credentials. Limits --session-duration to one hour.
    #[arg(long, env = "KIAM_ASSUME_ROLE_ARN", value_name = "ROLE")]
    pub(crate) assume_role_arn: Option<String>,
    /// Region of the STS endpoint [default: that of the environment or the instance, else the global endpoint].
    #[arg(long, env = "KIAM_REGION", value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// URL of the STS endpoint, instead of the region's: https://HOST
    #[arg(long, env = "KIAM_STS_ENDPOINT", value_name = "URL")]
    pub(crate) sts_endpoint: Option<String>,
    /// Certificate authorities to trust for AWS in addition to the system's, PEM.
    #[arg(long, env = "KIAM_STS_CA", value_name = "FILE")]
    pub(crate) sts_ca: Option<String>,
    /// Concurrent background fetches of credentials.
    #[arg(long, env = "KIAM_FETCHERS", default_value = "8", value_name = "NUMBER")]
    pub(crate) fetchers: String,
    /// Length of the credential cache's queue of requests and changes of pods.
    #[arg(long, env = "KIAM_PREFETCH_BUFFER_SIZE", default_value = "1000", value_name = "NUMBER")]
    pub(crate) prefetch_buffer_size: String,
}

/// Flags of `kiam-server health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Server to check; its certificate must carry the host.
    #[arg(long, env = "KIAM_SERVER_ADDRESS", default_value = "localhost:9610", value_name = "HOST:PORT")]
    pub(crate) server_address: String,
    /// Total time for the check, including retries.
    #[arg(long, env = "KIAM_TIMEOUT", default_value = "1s", value_name = "DURATION")]
    pub(crate) timeout: String,
    /// Time for each connection attempt.
    #[arg(long, env = "KIAM_GATEWAY_TIMEOUT_CREATION", default_value = "1s", value_name = "DURATION")]
    pub(crate) gateway_timeout_creation: String,
    /// No effect: the check is a single call, limited by --timeout and --gateway-timeout-creation.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) grpc_keepalive_time_duration: Option<String>,
    /// See --grpc-keepalive-time-duration.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) grpc_keepalive_timeout_duration: Option<String>,
    /// See --grpc-keepalive-time-duration.
    #[arg(long, value_name = "BOOL", hide = true)]
    #[arg(default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(crate) grpc_keepalive_permit_without_stream: Option<String>,
    /// No effect: the name is resolved for this single call.
    #[arg(long, value_name = "DURATION", hide = true)]
    pub(crate) server_address_refresh: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Parses a command line, the program's name first. `--help` and `--version` are errors, too.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    flags::parse(argv, SWITCHES)
}

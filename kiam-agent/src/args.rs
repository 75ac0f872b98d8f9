//! The command line, with every value as text. [`crate::config`] interprets the values, so that all bad ones are
//! reported at once.
//!
//! kiam's flags keep their names, including those of kiam 3. Each flag has an environment variable; a flag on the
//! command line wins.

mod kiam;

pub(crate) use kiam::KiamArgs;

use clap::{Args, Parser, Subcommand};
use kiam_common::flags::{self, AdminArgs, LogArgs, TlsArgs};
use std::ffi::OsString;

/// Boolean flags in kiam's style, which accept `--json-log`, `--json-log=false` and `--no-json-log`.
const SWITCHES: &[&str] =
    &["json-log", "allow-ip-query", "take-over", "iptables", "iptables-remove", "grpc-keepalive-permit-without-stream"];

/// Intercepts pods' requests to the EC2 instance metadata service (IMDS) and answers them with credentials of the IAM
/// role in each pod's annotation.
#[derive(Debug, Parser)]
#[command(name = "kiam-agent", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// The subcommand; `None` runs the agent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The subcommands of `kiam-agent`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Remove everything that agents have left in the kernel: programs, maps, rules and routes. Pods can then reach the
    /// real IMDS if the network allows it.
    Cleanup(Box<CleanupArgs>),
    /// Check the health of the agent in this pod, for exec probes. Exits 0 if the agent is ready.
    Health(HealthArgs),
    /// Show the state of this node: the agent, kiam's objects in the kernel, and problems with how to fix them. Exits 0
    /// if an agent answers and all its conditions are met.
    Status(StatusArgs),
    /// The unprivileged process of the agent, started by the agent itself.
    #[command(hide = true)]
    Worker(Box<RunArgs>),
}

/// All flags of a running agent.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs<3100, 9620>,
    #[command(flatten)]
    pub(crate) imds: ImdsArgs,
    #[command(flatten)]
    pub(crate) upstream: UpstreamArgs,
    #[command(flatten)]
    pub(crate) redirect: RedirectArgs,
    #[command(flatten)]
    pub(crate) take_over: TakeOverArgs,
    #[command(flatten)]
    pub(crate) exempt: ExemptArgs,
    #[command(flatten)]
    pub(crate) kiam: KiamArgs,
}

/// Flags of `kiam-agent cleanup`.
#[derive(Debug, Args)]
pub(crate) struct CleanupArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) redirect: RedirectArgs,
}

/// Flags of `kiam-agent health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    /// Time limit for the answer of the agent.
    #[arg(long, env = "KIAM_TIMEOUT", default_value = "1s", value_name = "DURATION")]
    pub(crate) timeout: String,
}

/// Flags of `kiam-agent status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) agent: HealthArgs,
    /// Mount point of the BPF file system.
    #[arg(long, env = "KIAM_BPFFS", default_value = "/sys/fs/bpf", value_name = "DIRECTORY")]
    pub(crate) bpffs: String,
    /// Output format: tables for people, or JSON for programs.
    #[arg(long, env = "KIAM_OUTPUT", default_value = "table", value_name = "table|json")]
    pub(crate) output: String,
}

/// Flags of the metadata service for pods.
#[derive(Debug, Args)]
#[command(next_help_heading = "Metadata service")]
pub(crate) struct ImdsArgs {
    /// Treatment of requests without a session token (IMDSv1): allow answers them, deny refuses them with 401.
    #[arg(long, env = "KIAM_IMDS_V1", default_value = "allow", value_name = "allow|deny")]
    pub(crate) imds_v1: String,
    /// Paths that are forwarded to the real IMDS. Forwarding is not supported yet, so only ^$ (no path) is accepted.
    #[arg(long, alias = "whitelist-route-regexp", env = "KIAM_ALLOW_ROUTE_REGEXP", default_value = "^$")]
    #[arg(value_name = "REGEXP")]
    pub(crate) allow_route_regexp: String,
    /// Refused: this flag of kiam lets a pod name the address of another pod.
    #[arg(long, env = "KIAM_ALLOW_IP_QUERY", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide = true)]
    pub(crate) allow_ip_query: String,
}

/// Flags of the connection to the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct UpstreamArgs {
    /// Address of the kiam server. The server's certificate must be valid for this host; the host may resolve to
    /// several servers.
    #[arg(long, env = "KIAM_SERVER_ADDRESS", default_value = "localhost:9610", value_name = "HOST:PORT")]
    pub(crate) server_address: String,
    /// Interval at which an idle connection to the server is checked.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_DURATION", default_value = "2s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_time_duration: String,
    /// Time limit for the server's answer to such a check.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_DURATION", default_value = "1s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_timeout_duration: String,
    /// kiam 3's --grpc-keepalive-time-duration, in milliseconds.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_time_ms: Option<String>,
    /// kiam 3's --grpc-keepalive-timeout-duration, in milliseconds.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIMEOUT_MS", value_name = "MS", hide = true)]
    pub(crate) grpc_keepalive_timeout_ms: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// Flags of the datapath and of the agent's own files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redirect")]
pub(crate) struct RedirectArgs {
    /// Interfaces with pods behind them: an exact name, cali+ for every name that begins with cali, or !eth0 for every
    /// interface except eth0. Takes a comma-separated list and can be repeated.
    #[arg(long, env = "KIAM_HOST_INTERFACE", default_value = "docker0", value_name = "PATTERN")]
    #[arg(value_delimiter = ',')]
    pub(crate) host_interface: Vec<String>,
    /// Mount point of the BPF file system.
    #[arg(long, env = "KIAM_BPFFS", default_value = "/sys/fs/bpf", value_name = "DIRECTORY")]
    pub(crate) bpffs: String,
    /// Redirection of pods' connections to the agent: tc uses a program on each interface, cgroup uses hooks on the
    /// kubepods cgroup (v2). auto selects tc, and adds cgroup if --host-network-pods=enforce needs it.
    #[arg(long, env = "KIAM_REDIRECT", default_value = "auto", value_name = "auto|tc|cgroup|tc,cgroup")]
    pub(crate) redirect: String,
    /// Treatment of hostNetwork pods: ignore leaves them the node role, as kiam does; enforce gives them only the role
    /// in their annotation.
    #[arg(long, env = "KIAM_HOST_NETWORK_PODS", default_value = "ignore", value_name = "ignore|enforce")]
    pub(crate) host_network_pods: String,
    /// Attachment of the program to interfaces: auto selects tcx if the kernel has it (Linux 6.6), else a clsact
    /// filter.
    #[arg(long, env = "KIAM_TC", default_value = "auto", value_name = "auto|tcx|clsact")]
    pub(crate) tc: String,
    /// Redirection of the IPv6 address of the IMDS: auto enables it if the kernel has IPv6.
    #[arg(long, env = "KIAM_IPV6", default_value = "auto", value_name = "auto")]
    pub(crate) ipv6: String,
    /// Evidence for the pod of a connection: require accepts only the cgroup in which it was opened; prefer falls back
    /// to the pod's address where the kernel cannot report the cgroup; off uses the address alone.
    #[arg(long, env = "KIAM_ATTESTATION", default_value = "prefer", value_name = "require|prefer|off")]
    pub(crate) attestation: String,
    /// The kubelet's cgroup for pods, in the version 2 hierarchy: auto finds kubepods.slice or kubepods at the root of
    /// the hierarchy, wherever it is mounted.
    #[arg(long, env = "KIAM_KUBEPODS_CGROUP", default_value = "auto", value_name = "auto|DIRECTORY")]
    pub(crate) kubepods_cgroup: String,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    /// User of the worker, the unprivileged process that answers pods and connects to the server. This user or
    /// --worker-gid must be able to read --cert, --key and --ca.
    #[arg(long, env = "KIAM_WORKER_UID", default_value = "65532", value_name = "UID")]
    pub(crate) worker_uid: String,
    /// Group of the worker.
    #[arg(long, env = "KIAM_WORKER_GID", default_value = "65532", value_name = "GID")]
    pub(crate) worker_gid: String,
}

/// Flag for rules that kiam has left behind.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redirect")]
pub(crate) struct TakeOverArgs {
    /// Delete the nat rules of kiam, kube2iam and other programs that divert pods' connections to the IMDS. Without
    /// this flag the agent reports such rules and is not ready.
    #[arg(long, env = "KIAM_TAKE_OVER", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) take_over: String,
}

/// Flags for pods that keep the node role under `--host-network-pods=enforce`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exemptions")]
pub(crate) struct ExemptArgs {
    /// ServiceAccounts whose pods keep the node role with --host-network-pods=enforce, by exact names. Takes a
    /// comma-separated list and can be repeated. The list replaces the default. `default` expands to aws-node,
    /// cloud-controller-manager, ebs-csi-node-sa and efs-csi-node-sa in kube-system; `none` exempts no pod. The agent's
    /// own pod is always exempt.
    #[arg(long, env = "KIAM_EXEMPT", default_value = "default", value_name = "NAMESPACE/SERVICEACCOUNT")]
    #[arg(value_delimiter = ',')]
    pub(crate) exempt: Vec<String>,
    /// Name of this node in Kubernetes, to list its exempt pods (in a pod: spec.nodeName).
    #[arg(long, env = "KIAM_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// UID of the agent's own pod (in a pod: metadata.uid).
    #[arg(long, env = "KIAM_POD_UID", value_name = "UID")]
    pub(crate) pod_uid: Option<String>,
    /// Kubeconfig file for the Kubernetes API. Without it the agent uses the ServiceAccount of its own pod.
    #[arg(long, env = "KIAM_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
}

/// Flags for the agent's own files.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// Directory on tmpfs for the key of session tokens, locks and sockets.
    #[arg(long, env = "KIAM_RUN_DIR", default_value = "/run/kiam", value_name = "DIRECTORY")]
    pub(crate) run_dir: String,
    /// Directory that survives a reboot, for the list of exempt pods.
    #[arg(long, env = "KIAM_STATE_DIR", default_value = "/var/lib/kiam", value_name = "DIRECTORY")]
    pub(crate) state_dir: String,
    /// Status socket, at which the agent answers `kiam-agent health` and `status` [default: probe.sock in --run-dir].
    #[arg(long, visible_alias = "status-socket", env = "KIAM_PROBE_SOCKET", value_name = "PATH")]
    pub(crate) probe_socket: Option<String>,
}

/// Parses a command line, which begins with the program's name. `--help` and `--version` are errors, too.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    flags::parse(argv, SWITCHES)
}

#[cfg(test)]
mod tests;

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
const SWITCHES: &[&str] =
    &["json-log", "allow-ip-query", "take-over", "iptables", "iptables-remove", "grpc-keepalive-permit-without-stream"];

/// Catches pods' requests to the EC2 metadata service and answers them with credentials of the role that each pod is
/// annotated with.
#[derive(Debug, Parser)]
#[command(name = "kiam-agent", version, args_conflicts_with_subcommands = true, max_term_width = 120)]
pub(crate) struct Cli {
    /// What to do; none: run the agent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The agent's own flags.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What `kiam-agent` can do besides running.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Remove everything that agents have left in the kernel: programs, maps, rules and routes. Pods then reach what
    /// the network lets them reach.
    Cleanup(Box<CleanupArgs>),
    /// Ask the agent of this pod whether it is healthy; exit code 0 when it is (for exec probes).
    Health(HealthArgs),
    /// Show what the agent of this node does, what is in the kernel, and what is wrong and what to do; exit code 0 when an
    /// agent runs and serves.
    Status(StatusArgs),
    /// The unprivileged half of the agent; started by the agent itself.
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
    /// How long to wait for the answer.
    #[arg(long, env = "KIAM_TIMEOUT", default_value = "1s", value_name = "DURATION")]
    pub(crate) timeout: String,
}

/// Flags of `kiam-agent status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) agent: HealthArgs,
    /// Where the BPF file system is mounted.
    #[arg(long, env = "KIAM_BPFFS", default_value = "/sys/fs/bpf", value_name = "DIRECTORY")]
    pub(crate) bpffs: String,
    /// For people or for programs.
    #[arg(long, env = "KIAM_OUTPUT", default_value = "table", value_name = "table|json")]
    pub(crate) output: String,
}

/// How pods are answered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Metadata service")]
pub(crate) struct ImdsArgs {
    /// Whether requests without a session token (IMDSv1) are answered: allow or deny.
    #[arg(long, env = "KIAM_IMDS_V1", default_value = "allow", value_name = "allow|deny")]
    pub(crate) imds_v1: String,
    /// Paths of the real metadata service that pods may read. Nothing is forwarded yet: only ^$ is accepted.
    #[arg(long, alias = "whitelist-route-regexp", env = "KIAM_ALLOW_ROUTE_REGEXP", default_value = "^$")]
    #[arg(value_name = "REGEXP")]
    pub(crate) allow_route_regexp: String,
    /// Refused: it let a pod name the address that it wants to be taken for.
    #[arg(long, env = "KIAM_ALLOW_IP_QUERY", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide = true)]
    pub(crate) allow_ip_query: String,
}

/// How the server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct UpstreamArgs {
    /// Where the kiam server is; the host is the name that its certificate must carry, and may resolve to several
    /// servers.
    #[arg(long, env = "KIAM_SERVER_ADDRESS", default_value = "localhost:9610", value_name = "HOST:PORT")]
    pub(crate) server_address: String,
    /// How often an idle connection to the server is checked.
    #[arg(long, env = "KIAM_GRPC_KEEPALIVE_TIME_DURATION", default_value = "2s", value_name = "DURATION")]
    pub(crate) grpc_keepalive_time_duration: String,
    /// How long the server has for an answer to such a check.
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

/// How pods' connections are caught, and where the agent keeps what it shares with the kernel.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redirect")]
pub(crate) struct RedirectArgs {
    /// Interfaces that pods are behind: exact names, cali+ for every name that begins with cali, !eth0 for every one
    /// but eth0; a list, or repeated.
    #[arg(long, env = "KIAM_HOST_INTERFACE", default_value = "docker0", value_name = "PATTERN")]
    #[arg(value_delimiter = ',')]
    pub(crate) host_interface: Vec<String>,
    /// Where the BPF file system is mounted.
    #[arg(long, env = "KIAM_BPFFS", default_value = "/sys/fs/bpf", value_name = "DIRECTORY")]
    pub(crate) bpffs: String,
    /// How pods' connections are caught: tc, by a program on each interface; cgroup, by hooks on the kubepods cgroup
    /// (v2); or both. auto takes tc, and cgroup too where --host-network-pods=enforce needs it.
    #[arg(long, env = "KIAM_REDIRECT", default_value = "auto", value_name = "auto|tc|cgroup|tc,cgroup")]
    pub(crate) redirect: String,
    /// hostNetwork pods: ignore leaves them the node's role, as kiam does; enforce gives them their own, and nothing
    /// else.
    #[arg(long, env = "KIAM_HOST_NETWORK_PODS", default_value = "ignore", value_name = "ignore|enforce")]
    pub(crate) host_network_pods: String,
    /// How the program is attached: auto takes tcx where the kernel has it (6.6), else a clsact filter.
    #[arg(long, env = "KIAM_TC", default_value = "auto", value_name = "auto|tcx|clsact")]
    pub(crate) tc: String,
    /// Whether the metadata service's IPv6 address is served: auto serves it where the kernel has IPv6.
    #[arg(long, env = "KIAM_IPV6", default_value = "auto", value_name = "auto")]
    pub(crate) ipv6: String,
    /// Whether a pod must be the one whose cgroup its connection comes from: prefer asks for that wherever the kernel can
    /// tell, require refuses pods where it cannot, off goes by the pod's address alone.
    #[arg(long, env = "KIAM_ATTESTATION", default_value = "prefer", value_name = "require|prefer|off")]
    pub(crate) attestation: String,
    /// The cgroup below which the kubelet keeps those of pods, in the version 2 hierarchy: auto finds kubepods.slice or
    /// kubepods at its root, wherever it is mounted.
    #[arg(long, env = "KIAM_KUBEPODS_CGROUP", default_value = "auto", value_name = "auto|DIRECTORY")]
    pub(crate) kubepods_cgroup: String,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    /// The user that answers pods and speaks to the server; it can do nothing else. It or --worker-gid must be able to
    /// read --cert, --key and --ca.
    #[arg(long, env = "KIAM_WORKER_UID", default_value = "65532", value_name = "UID")]
    pub(crate) worker_uid: String,
    /// The group of that user.
    #[arg(long, env = "KIAM_WORKER_GID", default_value = "65532", value_name = "GID")]
    pub(crate) worker_gid: String,
}

/// What becomes of what kiam has left behind.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redirect")]
pub(crate) struct TakeOverArgs {
    /// Delete the nat rules of kiam, kube2iam and others that give pods' connections to the metadata service another
    /// destination. Without it they are only named, and hold readiness back.
    #[arg(long, env = "KIAM_TAKE_OVER", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) take_over: String,
}

/// Which pods keep the node's role under `--host-network-pods=enforce`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exemptions")]
pub(crate) struct ExemptArgs {
    /// With --host-network-pods=enforce: the ServiceAccounts whose pods keep the node's role, by exact names; a list, or
    /// repeated. It says all of them: `default` among them stands for aws-node, cloud-controller-manager, ebs-csi-node-sa
    /// and efs-csi-node-sa of kube-system, `none` alone for nobody. The agent's own pod is exempt always.
    #[arg(long, env = "KIAM_EXEMPT", default_value = "default", value_name = "NAMESPACE/SERVICEACCOUNT")]
    #[arg(value_delimiter = ',')]
    pub(crate) exempt: Vec<String>,
    /// This node's name in Kubernetes, by which the API is asked for its exempt pods (in a pod: spec.nodeName).
    #[arg(long, env = "KIAM_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The UID of the agent's own pod (in a pod: metadata.uid).
    #[arg(long, env = "KIAM_POD_UID", value_name = "UID")]
    pub(crate) pod_uid: Option<String>,
    /// Credentials for the Kubernetes API; none: those of our own pod.
    #[arg(long, env = "KIAM_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<String>,
}

/// Where the agent's own files are.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// A directory of the agent's own, on tmpfs: the key of session tokens, locks, sockets.
    #[arg(long, env = "KIAM_RUN_DIR", default_value = "/run/kiam", value_name = "DIRECTORY")]
    pub(crate) run_dir: String,
    /// A directory of the agent's own that outlives a reboot: which pods were exempt.
    #[arg(long, env = "KIAM_STATE_DIR", default_value = "/var/lib/kiam", value_name = "DIRECTORY")]
    pub(crate) state_dir: String,
    /// The socket that `kiam-agent health` and `status` ask [default: probe.sock in --run-dir].
    #[arg(long, env = "KIAM_PROBE_SOCKET", value_name = "PATH")]
    pub(crate) probe_socket: Option<String>,
}

/// Parses a command line, the program's name first. `--help` and `--version` are errors, too.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    flags::parse(argv, SWITCHES)
}

#[cfg(test)]
mod tests;

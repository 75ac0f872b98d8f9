//! What the command line means: every value parsed and bounded. Building a [`Config`] opens and binds nothing, and
//! reports all that is wrong at once.

mod account;
mod attestation;
mod datapath;
mod exempt;
mod host_interface;
mod imds;
mod mode;
mod notices;
mod paths;
mod status;
mod upstream;

pub(crate) use account::{ACCOUNTS_MAX, Account, is_name};
pub(crate) use attestation::{Attestation, KubepodsAt};
pub(crate) use datapath::{DatapathConfig, TcAttach};
pub(crate) use exempt::ExemptConfig;
pub(crate) use host_interface::InterfaceMatch;
pub(crate) use imds::{ImdsConfig, ImdsV1};
pub(crate) use kiam_common::flags::{AdminConfig, LogConfig};
pub(crate) use mode::{HostNetworkPods, RedirectMode};
pub(crate) use status::{Output, StatusConfig};
pub(crate) use upstream::UpstreamConfig;

use crate::args::{CleanupArgs, HealthArgs, RunArgs};
use kiam_common::flags::{self, Problems};
use std::{path::PathBuf, time::Duration};

/// Longest that `kiam-agent health` may wait: the kubelet's own limit of a probe is seconds.
const HEALTH_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// The whole agent's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What is logged.
    pub(crate) log: LogConfig,
    /// Health and metrics.
    pub(crate) admin: AdminConfig,
    /// How pods are answered.
    pub(crate) imds: ImdsConfig,
    /// How the server is reached.
    pub(crate) upstream: UpstreamConfig,
    /// How connections are caught.
    pub(crate) datapath: DatapathConfig,
    /// Whether nat rules of others for M are deleted.
    pub(crate) take_over: bool,
    /// Which pods keep the node's role.
    pub(crate) exempt: ExemptConfig,
    /// What to tell the reader of the log at the start: settings of kiam's that have no effect, and why.
    pub(crate) notices: Vec<String>,
}

/// Of `kiam-agent cleanup`.
#[derive(Debug, Clone)]
pub(crate) struct CleanupConfig {
    /// What is logged.
    pub(crate) log: LogConfig,
    /// Where the agents' leftovers are.
    pub(crate) datapath: DatapathConfig,
}

/// Of `kiam-agent health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthConfig {
    /// The agent's probe socket.
    pub(crate) probe_socket: PathBuf,
    /// How long to wait for its answer.
    pub(crate) timeout: Duration,
}

impl TryFrom<RunArgs> for Config {
    type Error = Problems;

    fn try_from(args: RunArgs) -> Result<Self, Problems> {
        let RunArgs { log, admin, imds, upstream, redirect, take_over, exempt, kiam } = args;
        let mut problems = Problems::default();
        let mut notices = notices::of(&kiam);
        let log = problems.section(LogConfig::try_from(log));
        let admin = problems.section(AdminConfig::try_from(admin));
        let imds = problems.section(ImdsConfig::try_from(imds));
        let upstream = problems.section(UpstreamConfig::try_from(upstream));
        let datapath = problems.section(DatapathConfig::try_from(redirect));
        let take_over = problems.value("--take-over", &take_over.take_over, flags::switch);
        let exempt = problems.section(ExemptConfig::try_from(exempt));
        match (log, admin, imds, upstream, datapath, take_over, exempt) {
            (Some(log), Some(admin), Some(imds), Some(upstream), Some(datapath), Some(take_over), Some(exempt)) => {
                let exempt = exempt.only_under(datapath.host_network_pods);
                notices.extend(exempt.notice(datapath.host_network_pods));
                Ok(Self { log, admin, imds, upstream, datapath, take_over, exempt, notices })
            }
            _ => Err(problems),
        }
    }
}

impl TryFrom<CleanupArgs> for CleanupConfig {
    type Error = Problems;

    fn try_from(args: CleanupArgs) -> Result<Self, Problems> {
        let CleanupArgs { log, redirect } = args;
        let mut problems = Problems::default();
        let log = problems.section(LogConfig::try_from(log));
        let datapath = problems.section(DatapathConfig::try_from(redirect));
        match (log, datapath) {
            (Some(log), Some(datapath)) => Ok(Self { log, datapath }),
            _ => Err(problems),
        }
    }
}

impl TryFrom<HealthArgs> for HealthConfig {
    type Error = Problems;

    fn try_from(args: HealthArgs) -> Result<Self, Problems> {
        let HealthArgs { paths, timeout } = args;
        let mut problems = Problems::default();
        let paths = problems.section(paths::Paths::try_from(paths));
        let timeout =
            problems.value("--timeout", &timeout, |text| flags::duration(text, Duration::ZERO, HEALTH_TIMEOUT_MAX));
        match (paths, timeout) {
            (Some(paths::Paths { run_dir: _, state_dir: _, probe_socket }), Some(timeout)) => {
                Ok(Self { probe_socket, timeout })
            }
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests;

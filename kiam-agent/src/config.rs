//! The configuration: every value of the command line, parsed and bounded. Building a [`Config`] opens and binds
//! nothing, and reports all problems at once.

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

/// Longest `--timeout` of `kiam-agent health`: the kubelet's own limit for a probe is seconds.
const HEALTH_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Configuration of a running agent.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) log: LogConfig,
    /// Health and metrics endpoints.
    pub(crate) admin: AdminConfig,
    pub(crate) imds: ImdsConfig,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) datapath: DatapathConfig,
    /// True to delete nat rules of other programs for the IMDS.
    pub(crate) take_over: bool,
    /// The pods that keep the node role.
    pub(crate) exempt: ExemptConfig,
    /// Warnings for the log at start, most of them about settings of kiam that have no effect.
    pub(crate) notices: Vec<String>,
}

/// Configuration of `kiam-agent cleanup`.
#[derive(Debug, Clone)]
pub(crate) struct CleanupConfig {
    pub(crate) log: LogConfig,
    pub(crate) datapath: DatapathConfig,
}

/// Configuration of `kiam-agent health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthConfig {
    /// The status socket of the agent.
    pub(crate) probe_socket: PathBuf,
    /// Time limit for the answer.
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

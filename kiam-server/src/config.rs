//! The configuration: every value of the command line parsed and bounded. Building a [`Config`] opens and binds
//! nothing, and reports all problems at once.

mod aws;
mod grpc;
mod health;
mod roles;

pub(crate) use aws::AwsConfig;
pub(crate) use grpc::GrpcConfig;
pub(crate) use health::HealthConfig;
pub(crate) use kiam_common::flags::{AdminConfig, LogConfig};
pub(crate) use roles::{BaseArn, RoleConfig};

use crate::args::{ClusterArgs, RunArgs};
use kiam_common::{flags::Problems, tls::TlsFiles};
use std::path::PathBuf;

/// Configuration of the server.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) log: LogConfig,
    pub(crate) admin: AdminConfig,
    pub(crate) tls: TlsFiles,
    pub(crate) grpc: GrpcConfig,
    pub(crate) cluster: ClusterConfig,
    pub(crate) roles: RoleConfig,
    pub(crate) aws: AwsConfig,
    /// Warnings to log at startup.
    pub(crate) notices: Vec<String>,
}

/// The Kubernetes API.
#[derive(Debug)]
pub(crate) struct ClusterConfig {
    /// `None`: the ServiceAccount of this pod.
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl TryFrom<RunArgs> for Config {
    type Error = Problems;

    fn try_from(args: RunArgs) -> Result<Self, Problems> {
        let RunArgs { log, admin, tls, grpc, cluster, roles, aws, kiam } = args;
        let mut problems = Problems::default();
        let log = problems.section(LogConfig::try_from(log));
        let admin = problems.section(AdminConfig::try_from(admin));
        let tls = problems.section(TlsFiles::try_from(tls));
        let grpc = problems.section(GrpcConfig::try_from(grpc));
        let cluster = problems.section(ClusterConfig::try_from(cluster));
        let roles = problems.section(RoleConfig::try_from(roles));
        let aws = problems.section(AwsConfig::try_from(aws));
        match (log, admin, tls, grpc, cluster, roles, aws) {
            (Some(log), Some(admin), Some(tls), Some(grpc), Some(cluster), Some(roles), Some(aws)) => {
                let mut notices = kiam.notices();
                notices.extend(aws.notice());
                Ok(Self { log, admin, tls, grpc, cluster, roles, aws, notices })
            }
            _ => Err(problems),
        }
    }
}

impl TryFrom<ClusterArgs> for ClusterConfig {
    type Error = Problems;

    fn try_from(args: ClusterArgs) -> Result<Self, Problems> {
        let ClusterArgs { kubeconfig } = args;
        Ok(Self { kubeconfig: kubeconfig.filter(|path| !path.is_empty()).map(PathBuf::from) })
    }
}

#[cfg(test)]
mod tests;

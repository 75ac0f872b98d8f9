//! Clients in a pod: a plain HTTP client in Rust for many and unusual connections, and the unmodified tools.

pub mod forge;
mod half_open;
mod http1;
mod tools;

pub use half_open::HalfOpen;
pub use http1::{Answer, Connection, Reply};
pub use tools::{Boto3Identity, Environment, Python, aws_cli, boto3_identity, curl};

use crate::node::{
    netns::Netns,
    topology::{IMDS_V4, IMDS_V6},
};
use anyhow::{Context as _, Result, ensure};
use std::{net::IpAddr, time::Duration};

/// Addresses of the IMDS, for tests over both families.
pub const BOTH: [IpAddr; 2] = [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)];
/// IPv4 address of the IMDS.
pub const IMDS4: IpAddr = IpAddr::V4(IMDS_V4);
/// IPv6 address of the IMDS.
pub const IMDS6: IpAddr = IpAddr::V6(IMDS_V6);
/// Path of the role list.
pub const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Timeout of a request that must be answered. An AWS client gives up after 1 s; a loaded machine may need longer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Timeout of a request that must not be answered: more than a second, so that it includes a retransmitted SYN.
pub const VAIN: Duration = Duration::from_millis(1500);

/// The plain client in a pod (or in any namespace).
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    netns: &'a Netns,
}

impl<'a> Pod<'a> {
    /// Returns a client in this namespace.
    #[must_use]
    pub fn new(netns: &'a Netns) -> Self {
        Self { netns }
    }

    /// Sends a GET over IMDSv1 on a new connection.
    pub fn get(self, imds: IpAddr, path: &str) -> Result<Answer> {
        self.request(imds, "GET", path, &[])
    }

    /// Sends a request on a new connection.
    pub fn request(self, imds: IpAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.netns.enter(|| {
            let mut connection = Connection::open(imds, None, PATIENCE)?;
            connection.send(method, path, headers)?;
            connection.answer().with_context(|| format!("{method} {path} at {imds}"))
        })
    }

    /// Sends a GET on a new connection and returns the outcome, an answer or not.
    pub fn attempt(self, imds: IpAddr, path: &str, patience: Duration) -> Result<Reply> {
        self.netns.enter(|| Ok(http1::attempt(imds, None, path, patience)))
    }

    /// Like [`Pod::attempt`], in a thread that has entered a pod's namespace.
    #[must_use]
    pub fn attempt_here(imds: IpAddr, path: &str, patience: Duration) -> Reply {
        http1::attempt(imds, None, path, patience)
    }

    /// Returns a session token of IMDSv2.
    pub fn token(self, imds: IpAddr) -> Result<String> {
        let answer =
            self.request(imds, "PUT", "/latest/api/token", &[("X-aws-ec2-metadata-token-ttl-seconds", "21600")])?;
        ensure!(answer.status == 200, "token: {answer:?}");
        Ok(answer.text().to_owned())
    }

    /// Runs `work` in the namespace, on a thread of its own.
    pub fn run<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns.enter(work)
    }
}

//! What asks from within a pod: a plain HTTP client in Rust for many and odd connections, and the unmodified tools.

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

/// M, both families, for tests that go over both.
pub const BOTH: [IpAddr; 2] = [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)];
/// M over IPv4.
pub const M4: IpAddr = IpAddr::V4(IMDS_V4);
/// M over IPv6.
pub const M6: IpAddr = IpAddr::V6(IMDS_V6);
/// The path of the role list.
pub const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// How long a request may take when it shall be answered; a client of AWS gives up after 1 s, a loaded machine may not.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an answer that shall not come: more than a second, so that a retransmitted SYN is part of it.
pub const VAIN: Duration = Duration::from_millis(1500);

/// The plain client in a pod (or in any namespace).
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    netns: &'a Netns,
}

impl<'a> Pod<'a> {
    /// A client in this namespace.
    #[must_use]
    pub fn new(netns: &'a Netns) -> Self {
        Self { netns }
    }

    /// One GET over IMDSv1 on a connection of its own.
    ///
    /// # Errors
    /// No answer.
    pub fn get(self, m: IpAddr, path: &str) -> Result<Answer> {
        self.request(m, "GET", path, &[])
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// No answer.
    pub fn request(self, m: IpAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.netns.enter(|| {
            let mut connection = Connection::open(m, None, PATIENCE)?;
            connection.send(method, path, headers)?;
            connection.answer().with_context(|| format!("{method} {path} at {m}"))
        })
    }

    /// What becomes of a GET on a new connection, an answer or not.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn attempt(self, m: IpAddr, path: &str, patience: Duration) -> Result<Reply> {
        self.netns.enter(|| Ok(http1::attempt(m, None, path, patience)))
    }

    /// As [`Pod::attempt`], in a thread that has entered a pod's namespace.
    #[must_use]
    pub fn attempt_here(m: IpAddr, path: &str, patience: Duration) -> Reply {
        http1::attempt(m, None, path, patience)
    }

    /// A session token of IMDSv2.
    ///
    /// # Errors
    /// No answer, or not 200.
    pub fn token(self, m: IpAddr) -> Result<String> {
        let answer =
            self.request(m, "PUT", "/latest/api/token", &[("X-aws-ec2-metadata-token-ttl-seconds", "21600")])?;
        ensure!(answer.status == 200, "token: {answer:?}");
        Ok(answer.text().to_owned())
    }

    /// Runs something in the namespace, on a thread of its own: connections in numbers, chosen ports, half-open ones.
    ///
    /// # Errors
    /// The work's own.
    pub fn run<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns.enter(work)
    }
}

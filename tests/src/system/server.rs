//! A running server.

use super::{SOON, binaries::Binaries};
use crate::{
    clients::Environment,
    eventually::eventually,
    fakes::{
        pki::TlsFiles,
        sts::{ACCOUNT, Sts},
    },
    node::{netns::Netns, process::Daemon},
};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
};

/// Port of the gRPC service, on the node's loopback address.
pub(super) const PORT: u16 = 9610;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its process and log.
    pub daemon: Daemon,
    node: PathBuf,
}

impl Server {
    pub(super) fn spawn(
        binaries: &Binaries,
        node: &Netns,
        folder: &Path,
        tls: &TlsFiles,
        flags: &[String],
    ) -> Result<Self> {
        let mut command = node.command(binaries.server());
        // The server's own credentials; their source does not matter in these tests.
        Environment { variables: Vec::new() }
            .with("AWS_ACCESS_KEY_ID", "AKIAKIAMSERVER000000")
            .with("AWS_SECRET_ACCESS_KEY", "server-secret")
            .apply(&mut command);
        command.args(super::flags(Self::default_flags(folder, tls), flags));
        Ok(Self {
            daemon: Daemon::spawn("server", &mut command, &folder.join("server.log"))?,
            node: node.path().to_owned(),
        })
    }

    /// Returns the flags of a working server.
    #[must_use]
    pub fn default_flags(folder: &Path, tls: &TlsFiles) -> Vec<String> {
        let TlsFiles { ca, cert, key } = tls;
        vec![
            format!("--bind=127.0.0.1:{PORT}"),
            format!("--kubeconfig={}", folder.join("kubeconfig").display()),
            format!("--cert={}", cert.display()),
            format!("--key={}", key.display()),
            format!("--ca={}", ca.display()),
            format!("--role-base-arn=arn:aws:iam::{ACCOUNT}:role/"),
            format!("--sts-endpoint={}", Sts::endpoint()),
            "--region=us-east-1".to_owned(),
            "--level=debug".to_owned(),
        ]
    }

    /// Waits until it accepts connections, which it does once it has listed the cluster's pods and namespaces.
    pub fn wait_ready(&mut self) -> Result<()> {
        let ended = eventually("the server accepts connections", SOON, || {
            if !self.daemon.is_running()? {
                return Ok(true);
            }
            connect(&self.node)?;
            Ok(false)
        })?;
        ensure!(!ended, "the server ended\n{}", self.daemon.log_tail());
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.end(Signal::SIGKILL).map(drop)
    }
}

fn connect(node: &Path) -> Result<TcpStream> {
    Netns::enter_path(node, || Ok(TcpStream::connect(("127.0.0.1", PORT))?))
}

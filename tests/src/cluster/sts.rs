//! STS for a cluster: moto over TLS, at the address of the fake STS, with a certificate authority of its own.

use super::authority::{Authority, Subject, Usage};
use crate::{
    clients::{Environment, Python},
    eventually::eventually,
    node::{netns::Netns, process::Daemon, topology::STS_V4},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Port of STS.
const PORT: u16 = 5443;
/// Seconds Python has to start it.
const START_SECONDS_MAX: u64 = 60;

/// A running STS.
#[derive(Debug)]
pub struct TlsSts {
    daemon: Daemon,
    ca: PathBuf,
}

impl TlsSts {
    /// Starts it with its files in a folder; [`TlsSts::is_ready`] waits for it.
    pub(super) fn start(uplink: &Netns, python: &Python, folder: &Path) -> Result<Self> {
        fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        write_certificates(folder)?;
        let mut command = uplink.command(python.interpreter());
        Environment { variables: Vec::new() }.apply(&mut command);
        command
            .args(["-m", "moto.server", "-H", &STS_V4.to_string(), "-p", &PORT.to_string()])
            .arg("--ssl-cert")
            .arg(folder.join("sts.pem"))
            .arg("--ssl-key")
            .arg(folder.join("sts-key.pem"));
        let daemon = Daemon::spawn("moto", &mut command, &folder.join("moto.log"))?;
        Ok(Self { daemon, ca: folder.join("ca.pem") })
    }

    /// Waits until it accepts connections.
    pub(super) fn is_ready(&mut self, uplink: &Netns) -> Result<()> {
        eventually("moto accepts connections", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(self.daemon.is_running()?, "it ended\n{}", self.daemon.log_tail());
            uplink.enter(|| Ok(TcpStream::connect((STS_V4, PORT)).map(drop)?))
        })
    }

    /// Returns its URL, for the node and for pods.
    #[must_use]
    pub fn endpoint() -> String {
        format!("https://{STS_V4}:{PORT}")
    }

    /// Returns the path of its CA certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Returns its whole output.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::create("fake STS CA")?;
    authority.write(&folder.join("ca.pem"))?;
    let subject = Subject {
        common_name: "fake STS".to_owned(),
        organization: None,
        names: vec![STS_V4.to_string()],
        usage: Usage::Server,
    };
    authority.issue(&subject, &folder.join("sts.pem"), &folder.join("sts-key.pem"))
}

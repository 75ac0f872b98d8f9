//! STS: moto's server, in the uplink's namespace at an address of its own.

use crate::{
    clients::{Environment, Python},
    eventually::eventually,
    netns::Netns,
    process::{self, Daemon},
    topology::STS_V4,
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{path::Path, time::Duration};

/// Its port.
const PORT: u16 = 5000;
/// How long Python may take to start it, in seconds.
const START_SECONDS_MAX: u64 = 60;
/// The account that moto's world is.
pub const ACCOUNT: &str = "123456789012";

/// The running server.
#[derive(Debug)]
pub struct Sts {
    daemon: Daemon,
}

impl Sts {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// There is no Python with moto, or it doesn't answer in time.
    pub fn start(uplink: &Netns, python: &Python, folder: &Path) -> Result<Self> {
        let mut command = uplink.command(python.interpreter());
        Environment { variables: Vec::new() }.apply(&mut command);
        command.args(["-m", "moto.server", "-H", &STS_V4.to_string(), "-p", &PORT.to_string()]);
        let mut sts = Self { daemon: Daemon::spawn("moto", &mut command, &folder.join("moto.log"))? };
        eventually("moto answers", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(sts.daemon.is_running()?, "it ended\n{}", sts.daemon.log_tail());
            uplink.enter(|| Ok(std::net::TcpStream::connect((STS_V4, PORT))?))
        })?;
        Ok(sts)
    }

    /// Its URL, from the node and from pods.
    #[must_use]
    pub fn endpoint() -> String {
        format!("http://{STS_V4}:{PORT}")
    }

    /// Freezes it: connections are accepted by the kernel and nothing answers.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.daemon.signal(Signal::SIGSTOP)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&mut self) -> Result<()> {
        self.daemon.signal(Signal::SIGCONT)
    }

    /// Its access log: one line a call, without what was asked.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Whose credentials an access key id belongs to: `Arn` of GetCallerIdentity.
    ///
    /// # Errors
    /// moto does not answer.
    pub fn identity_of(uplink: &Netns, access_key_id: &str) -> Result<String> {
        // moto reads the key id of the signature and checks nothing else.
        let authorization = format!(
            "authorization: AWS4-HMAC-SHA256 Credential={access_key_id}/20260101/us-east-1/sts/aws4_request, \
             SignedHeaders=host, Signature=00"
        );
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let mut command = uplink.command("curl");
        command.args(["--silent", "--fail", "--max-time", "20", "--header", &authorization, "--data", body]);
        let answer = process::run(command.arg(Self::endpoint()))?;
        let (_, rest) = answer.split_once("<Arn>").with_context(|| format!("no Arn in {answer}"))?;
        let (arn, _) = rest.split_once("</Arn>").context("an end of the Arn")?;
        Ok(arn.to_owned())
    }

    /// The end of its log, for a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

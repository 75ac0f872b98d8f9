//! STS, in the uplink's namespace at an address of its own: moto's server, or a plain fake.

mod plain;

use crate::{
    clients::{Environment, Python},
    eventually::eventually,
    fakes::http_server::HttpServer,
    node::{
        netns::Netns,
        process::{self, Daemon},
        topology::STS_V4,
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{env, net::TcpListener, path::Path, sync::Arc, time::Duration};

/// Environment variable that selects the STS of the tests: `moto` (the default), or `plain` for a machine on which
/// Python is slow.
const WHICH: &str = "KIAM_TESTS_STS";

/// Port of STS.
const PORT: u16 = 5000;
/// Seconds Python has to start it.
const START_SECONDS_MAX: u64 = 60;
/// Account of moto.
pub const ACCOUNT: &str = "123456789012";

/// A running STS.
#[derive(Debug)]
pub enum Sts {
    /// moto's server.
    Moto(Daemon),
    /// The plain fake, on a thread.
    Plain(Running),
}

/// The plain fake; it runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    _server: HttpServer,
}

impl Sts {
    /// Starts the STS that `KIAM_TESTS_STS` selects and waits until it answers. moto needs a Python environment.
    pub fn start(uplink: &Netns, python: &Python, folder: &Path) -> Result<Self> {
        match env::var(WHICH).as_deref() {
            Ok("plain") => Self::start_plain(uplink),
            Ok("moto") | Err(env::VarError::NotPresent) => Self::start_moto(uplink, python, folder),
            other => bail!("{WHICH} must be moto or plain, not {other:?}"),
        }
    }

    fn start_moto(uplink: &Netns, python: &Python, folder: &Path) -> Result<Self> {
        let mut command = uplink.command(python.interpreter());
        Environment { variables: Vec::new() }.apply(&mut command);
        command.args(["-m", "moto.server", "-H", &STS_V4.to_string(), "-p", &PORT.to_string()]);
        let mut moto = Daemon::spawn("moto", &mut command, &folder.join("moto.log"))?;
        eventually("moto answers", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(moto.is_running()?, "it ended\n{}", moto.log_tail());
            uplink.enter(|| Ok(std::net::TcpStream::connect((STS_V4, PORT))?))
        })?;
        Ok(Self::Moto(moto))
    }

    /// Starts the plain fake, which needs no Python.
    pub fn start_plain(uplink: &Netns) -> Result<Self> {
        let listener = uplink.enter(|| TcpListener::bind((STS_V4, PORT)).context("bind STS"))?;
        let server = HttpServer::start(vec![listener], Arc::new(plain::Plain::default()))?;
        Ok(Self::Plain(Running { _server: server }))
    }

    /// Returns its URL, for the node and for pods.
    #[must_use]
    pub fn endpoint() -> String {
        format!("http://{STS_V4}:{PORT}")
    }

    /// Returns the `Arn` of GetCallerIdentity for an access key id.
    pub fn identity_of(uplink: &Netns, access_key_id: &str) -> Result<String> {
        // STS reads the key id of the signature and does not verify the rest.
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

    /// Returns the end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        match self {
            Self::Moto(daemon) => daemon.log_tail(),
            Self::Plain(_) => String::new(),
        }
    }
}

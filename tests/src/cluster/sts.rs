//! STS for a cluster: moto over TLS, at the address of the stand-in, with an authority of its own.

use crate::{
    clients::{Environment, Python},
    eventually::eventually,
    netns::Netns,
    process::Daemon,
    topology::STS_V4,
};
use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Its port.
const PORT: u16 = 5443;
/// How long Python may take to start it, in seconds.
const START_SECONDS_MAX: u64 = 60;

/// The running server.
#[derive(Debug)]
pub struct TlsSts {
    daemon: Daemon,
    ca: PathBuf,
}

impl TlsSts {
    /// Starts it with its files in a folder; [`TlsSts::is_ready`] waits for it.
    ///
    /// # Errors
    /// There is no Python with moto.
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

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// It ends, or doesn't in time.
    pub(super) fn is_ready(&mut self, uplink: &Netns) -> Result<()> {
        eventually("moto takes connections", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(self.daemon.is_running()?, "it ended\n{}", self.daemon.log_tail());
            uplink.enter(|| Ok(TcpStream::connect((STS_V4, PORT)).map(drop)?))
        })
    }

    /// Its URL, from the node and from pods.
    #[must_use]
    pub fn endpoint() -> String {
        format!("https://{STS_V4}:{PORT}")
    }

    /// The authority of its certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// All that it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

fn write_certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "STS stand-in CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key)?.pem())?;
    let mut server = CertificateParams::new(vec![STS_V4.to_string()])?;
    server.distinguished_name.push(DnType::CommonName, "STS stand-in");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?;
    fs::write(folder.join("sts.pem"), certificate.pem())?;
    fs::write(folder.join("sts-key.pem"), key.serialize_pem())?;
    Ok(())
}

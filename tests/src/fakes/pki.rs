//! A test CA, and valid and flawed certificates of agent and server, as files.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// DNS name in the server's certificate.
pub const SERVER_NAME: &str = "kiam-server";

/// Paths of a process's TLS files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// CA certificate, PEM.
    pub ca: PathBuf,
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// Purpose of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Extended key usage serverAuth, with names.
    Server,
    /// Extended key usage clientAuth.
    Agent,
}

/// Flaw of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// No flaw.
    None,
    /// No subject alternative name.
    NoNames,
    /// No extended key usage.
    NoUsage,
    /// The key file belongs to another certificate.
    OtherKey,
    /// Expired.
    Expired,
    /// Signed by a CA of the same name that is not trusted.
    OtherCa,
}

/// A CA that signs certificates for tests.
#[derive(Debug)]
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Pki {
    /// Creates a CA.
    pub fn create() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "kiam test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), ca_pem })
    }

    /// Writes a certificate with its key and the CA as `ca.pem`, `NAME.pem` and `NAME-key.pem`.
    pub fn write(&self, folder: &Path, name: &str, end: End, flaw: Flaw) -> Result<TlsFiles> {
        let (cert, key) = self.issue(end, flaw)?;
        let files = TlsFiles {
            ca: folder.join("ca.pem"),
            cert: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}-key.pem")),
        };
        for (path, text) in [(&files.ca, &self.ca_pem), (&files.cert, &cert), (&files.key, &key)] {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(files)
    }

    /// Issues a certificate and its key, as PEM.
    fn issue(&self, end: End, flaw: Flaw) -> Result<(String, String)> {
        let (names, usage) = match end {
            End::Server => (
                vec![SERVER_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()],
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
            End::Agent => (vec!["kiam-agent".to_owned()], ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params = CertificateParams::new(if flaw == Flaw::NoNames { Vec::new() } else { names })?;
        params.distinguished_name.push(DnType::CommonName, if end == End::Server { SERVER_NAME } else { "kiam-agent" });
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = if flaw == Flaw::NoUsage { Vec::new() } else { vec![usage] };
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(if flaw == Flaw::Expired { 2021 } else { 2099 }, 1, 1);
        let key = KeyPair::generate()?;
        let cert = if flaw == Flaw::OtherCa {
            params.signed_by(&key, &Self::create()?.issuer)?
        } else {
            params.signed_by(&key, &self.issuer)?
        };
        let written_key = if flaw == Flaw::OtherKey { KeyPair::generate()? } else { key };
        Ok((cert.pem(), written_key.serialize_pem()))
    }
}

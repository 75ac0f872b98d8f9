//! A certificate authority of a cluster, and the certificates that it signs.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{fs, path::Path};

/// An authority and its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Purpose of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
    /// The default of cfssl.
    Both,
}

/// Subject of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) common_name: String,
    /// `O`, which Kubernetes interprets as a group.
    pub(super) organization: Option<&'static str>,
    /// DNS names and addresses.
    pub(super) names: Vec<String>,
    pub(super) usage: Usage,
}

impl Authority {
    pub(super) fn create(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Writes the authority's own certificate, as PEM.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        write(file, &self.certificate)
    }

    /// Makes a key and its certificate and writes both, as PEM.
    pub(super) fn issue(&self, subject: &Subject, certificate: &Path, key: &Path) -> Result<()> {
        let Subject { common_name, organization, names, usage } = subject;
        let mut params = CertificateParams::new(names.clone())?;
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.distinguished_name.push(DnType::CommonName, common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        // Python requires it since 3.13.
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        write(certificate, &params.signed_by(&pair, &self.issuer)?.pem())?;
        write(key, &pair.serialize_pem())
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

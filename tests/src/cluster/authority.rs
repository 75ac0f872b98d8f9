//! A certificate authority of a cluster, and what it signs.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{fs, path::Path};

/// One authority and its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
    /// As cfssl does by default.
    Both,
}

/// Whose certificate it is.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) common_name: String,
    /// `O`, which Kubernetes takes for a group.
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

    /// Writes the authority's own certificate, PEM.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        write(file, &self.certificate)
    }

    /// Makes a key and its certificate and writes both, PEM.
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
        // Python from 3.13 on insists on it.
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        write(certificate, &params.signed_by(&pair, &self.issuer)?.pem())?;
        write(key, &pair.serialize_pem())
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

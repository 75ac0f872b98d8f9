//! Reading and parsing of the three files.

use super::{Side, TlsError, TlsFiles, certificate::Facts};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};
use zeroize::Zeroizing;

/// Longest file, bytes: a bundle of all public authorities has a quarter of this, and /dev/zero has no end.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Contents of the files.
pub(super) struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A certificate with its key, and the authorities that verify the peer.
pub struct Material {
    pub(super) authorities: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Earliest end of validity in the chain, seconds since 1970.
    pub(super) not_after: i64,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { ca, cert, key } = files;
        Ok(Self { ca: read("ca", ca)?, cert: read("cert", cert)?, key: Zeroizing::new(read("key", key)?) })
    }

    /// Returns a digest for detecting changes, so that the key is not kept twice.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [&self.ca, &self.cert, &*self.key] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    pub(super) fn parse(&self, files: &TlsFiles, side: Side) -> Result<Material, TlsError> {
        let chain = certificates("cert", &files.cert, &self.cert)?;
        let mut not_after = i64::MAX;
        for (index, certificate) in chain.iter().enumerate() {
            let facts = Facts::of(certificate).map_err(|source| TlsError::Certificate {
                flag: "cert",
                path: files.cert.clone(),
                source,
            })?;
            if index == 0
                && let Some(lack) = facts.lacks(side)
            {
                return Err(TlsError::Lacks { path: files.cert.clone(), subject: facts.subject, lack, side });
            }
            not_after = not_after.min(facts.not_after);
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| match source {
            pem::Error::NoItemsFound => TlsError::NoKey { path: files.key.clone() },
            source => TlsError::Pem { flag: "key", path: files.key.clone(), source },
        })?;
        Ok(Material { authorities: self.authorities(files)?, chain, key, not_after })
    }

    fn authorities(&self, files: &TlsFiles) -> Result<Arc<RootCertStore>, TlsError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates("ca", &files.ca, &self.ca)? {
            authorities.add(certificate).map_err(|source| TlsError::Authority { path: files.ca.clone(), source })?;
        }
        Ok(Arc::new(authorities))
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let attempt = || {
        let mut bytes = Vec::new();
        // One byte more than allowed, to detect a longer file.
        File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {FILE_LEN_MAX} bytes")));
        }
        Ok(bytes)
    };
    attempt().map_err(|source| TlsError::Read { flag, path: path.to_owned(), source })
}

/// Returns the certificates of a file, at least one.
fn certificates(flag: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { flag, path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { flag, path: path.to_owned() });
    }
    Ok(certificates)
}

//! Errors of the TLS files. Each names the flag, the file and the next step.

use super::{Lack, Side};
use rustls::pki_types::pem;
use std::{io, path::PathBuf};
use x509_parser::error::X509Error;

/// Reason why the TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or far too long.
    #[error("--{flag}={}: cannot be read", path.display())]
    Read {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or truncated.
    #[error("--{flag}={}: not a complete PEM file", path.display())]
    Pem {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error("--{flag}={}: contains no certificate (expected -----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file contains no private key.
    #[error("--key={}: contains no unencrypted private key (expected -----BEGIN PRIVATE KEY----- or RSA PRIVATE KEY)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate is not X.509.
    #[error("--{flag}={}: cannot parse a certificate of it", path.display())]
    Certificate {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: X509Error,
    },
    /// A certificate cannot be an authority.
    #[error("--ca={}: a certificate in it cannot be used as an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: rustls::Error,
    },
    /// A certificate lacks a part that many instructions leave out.
    #[error("--cert={}: the certificate of {subject} has no {lack}; make one that has: {}", path.display(), recipe(*side))]
    Lacks {
        /// The file.
        path: PathBuf,
        /// Its subject.
        subject: String,
        /// The missing part.
        lack: Lack,
        /// The side it is used for.
        side: Side,
    },
    /// Certificate and key are not a pair.
    #[error("--key={}: does not belong to the certificate in --cert={}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// rustls refuses the pair for another reason.
    #[error("cannot use --cert={} with --key={}", cert.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Reason.
        #[source]
        source: rustls::Error,
    },
}

/// Returns a command that makes a good certificate (OpenSSL 3.0 or newer).
fn recipe(side: Side) -> &'static str {
    match side {
        Side::Server => {
            "openssl req -new -newkey rsa:2048 -nodes -keyout server-key.pem -subj /CN=kiam-server \
             -addext subjectAltName=DNS:kiam-server,DNS:localhost,IP:127.0.0.1 \
             -addext extendedKeyUsage=serverAuth,clientAuth | openssl x509 -req -CA ca.pem -CAkey ca-key.pem \
             -CAcreateserial -days 365 -copy_extensions copyall -out server.pem"
        }
        Side::Client => {
            "openssl req -new -newkey rsa:2048 -nodes -keyout agent-key.pem -subj /CN=kiam-agent \
             -addext extendedKeyUsage=clientAuth | openssl x509 -req -CA ca.pem -CAkey ca-key.pem \
             -CAcreateserial -days 365 -copy_extensions copyall -out agent.pem"
        }
    }
}

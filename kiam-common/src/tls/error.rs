//! Why certificate, key or authorities can't be used: each error names the flag, the file and the next step.

use super::{Lack, Side};
use rustls::pki_types::pem;
use std::{io, path::PathBuf};
use x509_parser::error::X509Error;

/// What is wrong with the TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, not readable, or far too long.
    #[error("--{flag}={}: cannot be read", path.display())]
    Read {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or is cut short.
    #[error("--{flag}={}: not a complete PEM file", path.display())]
    Pem {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Where it ends to be PEM.
        #[source]
        source: pem::Error,
    },
    /// A file without a certificate in it.
    #[error("--{flag}={}: holds no certificate (expected -----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file without a private key in it.
    #[error("--key={}: holds no unencrypted private key (expected -----BEGIN PRIVATE KEY----- or RSA PRIVATE KEY)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Not an X.509 certificate.
    #[error("--{flag}={}: a certificate in it cannot be parsed", path.display())]
    Certificate {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: X509Error,
    },
    /// A certificate that cannot be an authority.
    #[error("--ca={}: a certificate in it cannot be used as an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// The usual recipe of a blog post: a certificate that says too little of itself.
    #[error("--cert={}: the certificate of {subject} has no {lack}; make one that has: {}", path.display(), recipe(*side))]
    Lacks {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        subject: String,
        /// What it lacks.
        lack: Lack,
        /// What it is to be used for.
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
    /// A pair that rustls refuses for another reason.
    #[error("--cert={} and --key={}: cannot be used", cert.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The command that makes a good certificate (OpenSSL 3.0 or newer).
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

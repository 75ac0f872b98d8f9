//! The flags of mutual TLS.

use super::{Problems, path};
use crate::tls::TlsFiles;
use clap::Args;

/// The flags of mutual TLS, as typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates")]
pub struct TlsArgs {
    /// Certificate to present, PEM; read again when it changes.
    #[arg(long, env = "KIAM_CERT", value_name = "FILE")]
    pub cert: Option<String>,
    /// Private key of --cert, PEM.
    #[arg(long, env = "KIAM_KEY", value_name = "FILE")]
    pub key: Option<String>,
    /// Certificate authorities that signed the certificate of the other side, PEM.
    #[arg(long, env = "KIAM_CA", value_name = "FILE")]
    pub ca: Option<String>,
}

impl TryFrom<TlsArgs> for TlsFiles {
    type Error = Problems;

    fn try_from(args: TlsArgs) -> Result<Self, Problems> {
        let TlsArgs { cert, key, ca } = args;
        let mut problems = Problems::default();
        let cert = problems.required("--cert", cert.as_deref(), "the certificate to present, a PEM file", path);
        let key = problems.required("--key", key.as_deref(), "the private key of --cert, a PEM file", path);
        let authority = "the authorities that signed the certificate of the other side, a PEM file";
        let ca = problems.required("--ca", ca.as_deref(), authority, path);
        match (cert, key, ca) {
            (Some(cert), Some(key), Some(ca)) => Ok(Self { ca, cert, key }),
            _ => Err(problems),
        }
    }
}

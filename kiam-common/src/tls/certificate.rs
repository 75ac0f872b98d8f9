//! The parts of a certificate that kiam needs, and those it requires.

use super::Side;
use std::fmt;
use x509_parser::{certificate::X509Certificate, error::X509Error, prelude::FromDer as _};

/// Longest subject shown, characters: it comes from a peer.
const SUBJECT_LEN_MAX: usize = 200;

/// The parts of a certificate that kiam needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// The subject for logs: printable characters only, cut.
    pub(crate) subject: String,
    /// End of validity, seconds since 1970.
    pub(crate) not_after: i64,
    server_auth: bool,
    client_auth: bool,
    alternative_name: bool,
}

/// A missing part of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// The extended key usage for server authentication.
    ServerAuth,
    /// The extended key usage for client authentication.
    ClientAuth,
    /// A subject alternative name; the common name is ignored (RFC 9525).
    AlternativeName,
}

impl Facts {
    pub(crate) fn of(der: &[u8]) -> Result<Self, X509Error> {
        let (_, certificate) = X509Certificate::from_der(der)?;
        let usage = certificate.extended_key_usage()?;
        let names = certificate.subject_alternative_name()?;
        Ok(Self {
            subject: printable(&certificate.subject().to_string()),
            not_after: certificate.validity().not_after.timestamp(),
            server_auth: usage.as_ref().is_some_and(|usage| usage.value.server_auth),
            client_auth: usage.as_ref().is_some_and(|usage| usage.value.client_auth),
            alternative_name: names.is_some_and(|names| !names.value.general_names.is_empty()),
        })
    }

    /// Returns what the certificate lacks to be used for this side.
    pub(crate) fn lacks(&self, side: Side) -> Option<Lack> {
        match side {
            Side::Server if !self.server_auth => Some(Lack::ServerAuth),
            Side::Server if !self.alternative_name => Some(Lack::AlternativeName),
            Side::Client if !self.client_auth => Some(Lack::ClientAuth),
            Side::Server | Side::Client => None,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerAuth => "extended key usage for server authentication (serverAuth)",
            Self::ClientAuth => "extended key usage for client authentication (clientAuth)",
            Self::AlternativeName => "subject alternative name (the common name does not count)",
        })
    }
}

/// Returns the printable characters of a peer's text, cut.
fn printable(text: &str) -> String {
    let mut line: String = text.chars().filter(|c| !c.is_control()).take(SUBJECT_LEN_MAX).collect();
    if line.is_empty() {
        line.push_str("(empty subject)");
    }
    line
}

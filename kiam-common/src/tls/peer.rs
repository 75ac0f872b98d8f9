//! Verification of the peer: that of rustls, and two requirements of kiam. A certificate must have an extended key
//! usage, and a server's certificate a subject alternative name. Errors name the peer's subject.

use super::{Lack, Side, certificate::Facts, provider};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{fmt, io, sync::Arc};

/// Reason why a peer is refused.
#[derive(thiserror::Error)]
pub enum PeerError {
    /// Its certificate lacks a required part.
    #[error("the certificate of {subject:?} has no {lack}")]
    Lacks {
        /// Its subject, as the peer wrote it.
        subject: String,
        /// The missing part.
        lack: Lack,
    },
    /// Its certificate does not verify: authority, name or validity.
    #[error("the certificate of {subject:?} is refused: {source}")]
    Refused {
        /// Its subject, as the peer wrote it.
        subject: String,
        /// Reason.
        source: Error,
    },
}

// rustls prints the error of a verifier with `Debug`: make that readable, too.
impl fmt::Debug for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the reason for a failed handshake, for a log: the error of the verifier if it was the verifier's.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let refusal = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match refusal {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => refusal.to_string(),
        Some(Error::AlertReceived(alert)) => format!("the other side refused the connection ({alert:?})"),
        _ => error.to_string(),
    }
}

/// The server's verifier of agents.
#[derive(Debug)]
pub(super) struct KnownClients(Arc<dyn ClientCertVerifier>);

/// The agent's verifier of servers.
#[derive(Debug)]
pub(super) struct KnownServers(Arc<WebPkiServerVerifier>);

impl KnownClients {
    pub(super) fn new(authorities: Arc<RootCertStore>) -> Result<Self, Error> {
        WebPkiClientVerifier::builder_with_provider(authorities, provider())
            // Go's clients send no certificate if the hints don't name the issuer of their intermediate.
            .clear_root_hint_subjects()
            .build()
            .map(Self)
            .map_err(|error| Error::General(error.to_string()))
    }
}

impl KnownServers {
    pub(super) fn new(authorities: Arc<RootCertStore>) -> Result<Self, Error> {
        WebPkiServerVerifier::builder_with_provider(authorities, provider())
            .build()
            .map(Self)
            .map_err(|error| Error::General(error.to_string()))
    }
}

/// Refuses a certificate that lacks a required part, then lets rustls verify it; either error names the subject.
fn verify_with_facts<T>(
    end_entity: &CertificateDer<'_>,
    side: Side,
    verify: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let Ok(facts) = Facts::of(end_entity) else {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    };
    let subject = facts.subject.clone();
    let refusal = match facts.lacks(side) {
        Some(lack) => PeerError::Lacks { subject, lack },
        None => match verify() {
            Ok(verified) => return Ok(verified),
            Err(source) => PeerError::Refused { subject, source },
        },
    };
    Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal)))))
}

/// The methods that both verifiers leave to rustls: its two traits have them in common, but share no trait.
macro_rules! rustls_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

impl ClientCertVerifier for KnownClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify_with_facts(end_entity, Side::Client, || self.0.verify_client_cert(end_entity, intermediates, now))
    }

    rustls_signatures!();
}

impl ServerCertVerifier for KnownServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_with_facts(end_entity, Side::Server, || {
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        })
    }

    rustls_signatures!();
}

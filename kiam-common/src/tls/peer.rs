//! Who may be at the other end. rustls' own verification, and beside it what it does not ask for: a certificate must
//! say what it is for (extended key usage), and a server's must say its name. Errors name the peer's subject.

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

/// Why a peer was turned away.
#[derive(thiserror::Error)]
pub enum PeerError {
    /// Its certificate says too little.
    #[error("the certificate of {subject:?} has no {lack}")]
    Lacks {
        /// Whose certificate it is, in the peer's own words.
        subject: String,
        /// What it lacks.
        lack: Lack,
    },
    /// Its certificate is not one that our authorities vouch for, here and now.
    #[error("the certificate of {subject:?} is refused: {source}")]
    Refused {
        /// Whose certificate it is, in the peer's own words.
        subject: String,
        /// Why.
        source: Error,
    },
}

// rustls shows the error of a verifier by `Debug` alone: let it be readable there too.
impl fmt::Debug for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a handshake failed, in words for a log: the verifier's own where it was the verifier.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let refusal = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match refusal {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => refusal.to_string(),
        Some(Error::AlertReceived(alert)) => format!("the other end refused us ({alert:?})"),
        _ => error.to_string(),
    }
}

/// The agents, as the server sees them.
#[derive(Debug)]
pub(super) struct KnownClients(Arc<dyn ClientCertVerifier>);

/// The servers, as an agent sees them.
#[derive(Debug)]
pub(super) struct KnownServers(Arc<WebPkiServerVerifier>);

impl KnownClients {
    pub(super) fn new(authorities: Arc<RootCertStore>) -> Result<Self, Error> {
        WebPkiClientVerifier::builder_with_provider(authorities, provider())
            // Go's clients send nothing when a hint doesn't name the issuer of their intermediate.
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

/// Refuses a certificate that says too little, then asks rustls; either refusal names the subject.
fn vouch<T>(
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

/// What either verifier leaves to rustls: its two traits have these methods in common, but no trait that holds them.
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
        vouch(end_entity, Side::Client, || self.0.verify_client_cert(end_entity, intermediates, now))
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
        vouch(end_entity, Side::Server, || {
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        })
    }

    rustls_signatures!();
}

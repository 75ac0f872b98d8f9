//! Mutual TLS between agent and server: TLS 1.3 only, both sides present a certificate of the same authorities.
//!
//! Certificate, key and authorities are files that are read again each second: the kubelet swaps a Secret's files by
//! symlink, and a rotation must not need a restart. If new files are unusable, that is logged and shown in a metric,
//! and the old ones stay in use. Open connections keep the certificates they started with.

mod certificate;
mod error;
mod material;
mod metrics;
mod peer;
mod reload;

pub use certificate::Lack;
pub use error::TlsError;
pub use peer::{PeerError, reason};
pub use reload::Reloading;

use peer::{KnownClients, KnownServers};
use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider, version::TLS13};
use std::{path::PathBuf, sync::Arc};

/// TLS configuration of the server.
pub type Server = Reloading<ServerConfig>;
/// TLS configuration of a client.
pub type Client = Reloading<ClientConfig>;

/// Paths of the PEM files; each field is named like its flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The authorities that may have signed the peer's certificate; several, so that old and new can overlap.
    pub ca: PathBuf,
    /// The own certificate, followed by intermediates.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// The side of a connection that a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `kiam-server`.
    Server,
    /// `kiam-agent`, and the server's own health probe.
    Client,
}

/// A configuration built from the files.
pub trait TlsConfig: Sized + Send + Sync + 'static {
    /// The side that this configuration is for.
    const SIDE: Side;

    #[doc(hidden)]
    fn build(material: material::Material) -> Result<Self, rustls::Error>;
}

/// HTTP/2, the protocol of gRPC.
const ALPN: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl TlsConfig for ServerConfig {
    const SIDE: Side = Side::Server;

    fn build(material: material::Material) -> Result<Self, rustls::Error> {
        let clients = Arc::new(KnownClients::new(Arc::clone(&material.authorities))?);
        let mut config = Self::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(material.chain, material.key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the verification of the certificate, but an authority that has been removed must
        // not be accepted for new connections.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }
}

impl TlsConfig for ClientConfig {
    const SIDE: Side = Side::Client;

    fn build(material: material::Material) -> Result<Self, rustls::Error> {
        let servers = Arc::new(KnownServers::new(Arc::clone(&material.authorities))?);
        let mut config = Self::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // KnownServers requires more than rustls' verifier, never less.
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(material.chain, material.key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

#[cfg(test)]
mod tests;

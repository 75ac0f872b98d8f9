//! Mutual TLS of agent and server: TLS 1.3 only, both ends show a certificate of the same authority.
//!
//! Certificate, key and authorities are files, and are read again each second: the kubelet swaps a Secret's files by
//! symlink, and a rotation must not need a restart. What is wrong with new files is logged and shown in a metric,
//! while the old ones stay in use. Connections that are open keep what they began with.

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

/// The server's end.
pub type Server = Reloading<ServerConfig>;
/// The agent's end.
pub type Client = Reloading<ClientConfig>;

/// Where the PEM files are; each name is the name of its flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The authorities that the peer's certificate may come from: one or more, so that old and new can overlap.
    pub ca: PathBuf,
    /// Our own certificate, followed by intermediates.
    pub cert: PathBuf,
    /// The private key of our own certificate.
    pub key: PathBuf,
}

/// Which end of the connection a certificate speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// `kiam-server`.
    Server,
    /// `kiam-agent`, and the server's own health probe.
    Client,
}

/// What the files are made into.
pub trait TlsConfig: Sized + Send + Sync + 'static {
    /// The end that this configuration is for.
    const SIDE: Side;

    #[doc(hidden)]
    fn build(material: material::Material) -> Result<Self, rustls::Error>;
}

/// HTTP/2, the only protocol that gRPC speaks.
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
        // A resumed session would skip the verification of the certificate: an authority that was taken away must
        // count from the next connection on.
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
            .dangerous() // Our verifier asks for more than rustls' own, never for less.
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(material.chain, material.key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

#[cfg(test)]
mod tests;

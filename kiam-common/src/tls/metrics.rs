//! kiam's three gauges of the certificate (kiam v4.2: `grpc_{client,server}_tls_certificate_…`).

use super::{Side, material::Material, provider};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustls::{
    pki_types::UnixTime,
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Metrics {
    /// 1 while the files are unusable.
    pub(super) update_error: Gauge,
    /// 1 while this process's certificate does not verify against its own authorities.
    verify_error: Gauge,
    /// Earliest end of validity in this process's chain, seconds since 1970.
    expiry_seconds: Gauge,
}

impl Metrics {
    pub(super) fn register(&self, side: Side, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix(match side {
            Side::Server => "grpc_server_tls_certificate",
            Side::Client => "grpc_client_tls_certificate",
        });
        registry.register(
            "update_error",
            "1 while the TLS files are unusable and the previous ones stay in use",
            self.update_error.clone(),
        );
        registry.register(
            "verify_error",
            "1 while this process's certificate does not verify against its own --ca",
            self.verify_error.clone(),
        );
        registry.register(
            "expiry_seconds",
            "End of validity of this process's certificate chain, seconds since 1970",
            self.expiry_seconds.clone(),
        );
    }

    /// Updates the metrics for new material; returns an error if the certificate does not verify.
    pub(super) fn observe(&self, side: Side, material: &Material) -> Result<(), rustls::Error> {
        self.expiry_seconds.set(material.not_after);
        let verified = verify_own(side, material);
        self.verify_error.set(i64::from(verified.is_err()));
        verified
    }
}

fn verify_own(side: Side, material: &Material) -> Result<(), rustls::Error> {
    let Some((leaf, intermediates)) = material.chain.split_first() else { return Ok(()) };
    match side {
        Side::Server => rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &material.authorities,
            intermediates,
            UnixTime::now(),
            provider().signature_verification_algorithms.all,
        ),
        Side::Client => WebPkiClientVerifier::builder_with_provider(Arc::clone(&material.authorities), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map(drop),
    }
}

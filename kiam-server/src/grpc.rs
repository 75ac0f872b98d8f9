//! The gRPC server for agents: `kiam.KiamService` over mutual TLS, compatible with kiam v4.

mod convert;
mod incoming;
mod service;
mod status;

pub(crate) use incoming::{Incoming, accept};
pub(crate) use service::Kiam;

use crate::core::{lookup::PodLookup, notice::NoticeSink, provider::CredentialSource};
use kiam_common::proto::kiam_service_server::KiamServiceServer;
use std::{future::Future, time::Duration};
use tonic::transport::Server;

/// Longest message in both directions, bytes; the longest real one, credentials, has 3 kB.
const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Longest header list of a request, bytes.
const HEADERS_LEN_MAX: u32 = 16 * 1024;
/// Most concurrent requests on a connection: a node has at most a few hundred pods.
const STREAMS_MAX: u32 = 256;
/// Time limit of a request; agents give up after 5 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Keepalive and age of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionSettings {
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) age: Duration,
    pub(crate) age_grace: Duration,
}

/// Serves agents until `stop`, then finishes pending requests.
pub(crate) async fn serve<L: PodLookup, S: CredentialSource, N: NoticeSink>(
    service: Kiam<L, S, N>,
    incoming: Incoming,
    settings: ConnectionSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = KiamServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_LEN_MAX)
        .http2_keepalive_interval(Some(settings.keepalive_time))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .max_connection_age(settings.age)
        .max_connection_age_grace(settings.age_grace)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

#[cfg(test)]
mod tests;

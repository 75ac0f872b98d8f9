//! `kiam-server health`, for exec probes: calls a server as an agent does.

use crate::config::HealthConfig;
use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use kiam_common::{
    flags::ServerAddress,
    proto::{GetHealthRequest, kiam_service_client::KiamServiceClient},
    tls,
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// Pause between two attempts, as in kiam.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Calls the server until it is healthy or the time is over; returns the last error.
pub(crate) async fn check(config: HealthConfig) -> anyhow::Result<()> {
    let HealthConfig { log: _, tls, server, timeout, connect_timeout } = config;
    let tls = tls::Client::load(&tls)?.config();
    let deadline = Instant::now() + timeout;
    loop {
        let attempt = tokio::time::timeout_at(deadline, call(Arc::clone(&tls), &server, connect_timeout));
        let error = match attempt.await {
            Ok(Ok(message)) => {
                tracing::info!("healthy: {message}");
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => anyhow::anyhow!("no response within --timeout"),
        };
        if Instant::now() + RETRY_INTERVAL >= deadline {
            return Err(error.context(format!("error retrieving health of {server}")));
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn call(tls: Arc<ClientConfig>, server: &ServerAddress, connect_timeout: Duration) -> anyhow::Result<String> {
    let channel = tokio::time::timeout(connect_timeout, connect(tls, server))
        .await
        .context("no connection within --gateway-timeout-creation")??;
    let response = KiamServiceClient::new(channel).get_health(GetHealthRequest {}).await;
    let message = response.map_err(|status| anyhow::anyhow!("{}", status.message().to_owned()))?.into_inner().message;
    anyhow::ensure!(message == "ok", "server health: {message:?}");
    Ok(message)
}

/// Opens one connection and a channel over it. The connection is made here to report why a certificate was refused.
async fn connect(tls: Arc<ClientConfig>, server: &ServerAddress) -> anyhow::Result<Channel> {
    let ServerAddress { host, port } = server;
    let name =
        ServerName::try_from(host.clone()).context("--server-address: not a name that a certificate can carry")?;
    let tcp = TcpStream::connect((host.as_str(), *port)).await.context("cannot connect")?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| anyhow::anyhow!("TLS: {}", tls::reason(&error)))?;
    let mut stream = Some(TokioIo::new(stream));
    // The URI is unused: the connection is open.
    let endpoint = Endpoint::from_static("http://kiam-server");
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    endpoint.connect_with_connector(connector).await.context("cannot start HTTP/2")
}

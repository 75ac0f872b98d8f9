//! The admin endpoint of both binaries: `/ping`, `/health` and `/metrics` over HTTP/1.
//!
//! Clients are not authenticated, so the answers contain no secret, and every limit is fixed.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding, registry::Registry};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Longest request head, bytes; probes and scrapers send less than one kibibyte.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// Longest wait for a complete request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest life of a connection; a scraper with keep-alive then opens another.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Most concurrent connections; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// Pause after a failed accept (no file descriptor left), so that the loop doesn't spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Answers of the admin endpoint.
pub trait AdminHandler: Send + Sync + 'static {
    /// Returns the body of `/health`: `Ok` is sent with status 200, `Err` with 503.
    ///
    /// # Errors
    /// The failed checks, one a line.
    fn health(&self) -> Result<String, String>;

    /// Returns `/metrics` in the OpenMetrics text format; `None` is answered with 404.
    fn metrics(&self) -> Option<String> {
        None
    }
}

/// Encodes all metrics in the OpenMetrics text format.
pub fn encode(registry: &Registry) -> Option<String> {
    let mut text = String::new();
    encoding::text::encode(&mut text, registry)
        .inspect_err(|error| tracing::error!(%error, "cannot encode the metrics"))
        .ok()?;
    Some(text)
}

/// Serves the endpoint until the future is dropped.
pub async fn serve(listener: TcpListener, handler: Arc<impl AdminHandler>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropping this future drops the set, which closes the connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    serve_connection(stream, handler).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin endpoint: cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, handler: Arc<impl AdminHandler>) {
    let service = service_fn(move |request| {
        let response = answer(&request, handler.as_ref());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_AGE_MAX, connection).await {
        tracing::debug!(%error, "admin endpoint: connection failed");
    }
}

fn answer(request: &Request<Incoming>, handler: &impl AdminHandler) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/ping" => text(StatusCode::OK, "pong".to_owned()),
        "/health" => match handler.health() {
            Ok(body) => text(StatusCode::OK, body),
            Err(body) => text(StatusCode::SERVICE_UNAVAILABLE, body),
        },
        "/metrics" => match handler.metrics() {
            Some(body) => typed(StatusCode::OK, body, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            None => not_found(),
        },
        _ => not_found(),
    }
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "not found: there are /ping, /health and /metrics\n".to_owned())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, body, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;

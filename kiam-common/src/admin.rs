//! The admin face of both binaries: `/ping`, `/health` and `/metrics` over HTTP/1.
//!
//! It answers whoever can reach its address, so it tells nothing that is secret, and every limit is fixed.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Longest request head, bytes: a probe's or a scraper's is below one kibibyte.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// Longest wait for a request's head.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest life of a connection: a scraper that keeps one alive makes the next in time.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Most connections at one time; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// Pause after a failed accept (no file descriptor left), so that it doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin face shows.
pub trait AdminFace: Send + Sync + 'static {
    /// `/health`: `Ok` is 200, `Err` is 503; the text is the body and names what is missing.
    ///
    /// # Errors
    /// What is not well.
    fn health(&self) -> Result<String, String>;

    /// `/metrics` in the Prometheus text format; `None`: this face has none, 404.
    fn metrics(&self) -> Option<String> {
        None
    }
}

/// Serves the face until the future is dropped.
pub async fn serve(listener: TcpListener, face: Arc<impl AdminFace>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropping the set ends its connections with this future.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let face = Arc::clone(&face);
                connections.spawn(async move {
                    serve_connection(stream, face).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin face: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, face: Arc<impl AdminFace>) {
    let service = service_fn(move |request| {
        let response = answer(&request, face.as_ref());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_AGE_MAX, connection).await {
        tracing::debug!(%error, "admin face: a connection ended");
    }
}

fn answer(request: &Request<Incoming>, face: &impl AdminFace) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/ping" => text(StatusCode::OK, "pong".to_owned()),
        "/health" => match face.health() {
            Ok(body) => text(StatusCode::OK, body),
            Err(body) => text(StatusCode::SERVICE_UNAVAILABLE, body),
        },
        "/metrics" => match face.metrics() {
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

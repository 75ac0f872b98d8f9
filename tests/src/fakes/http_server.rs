//! A small HTTP/1.1 server on a thread of its own, for the fakes. Dropping it closes every connection at once, like a
//! killed server.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Channel, Full, Limited, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};
use tokio::sync::oneshot;

/// Bytes of the longest request body: a pod object stays below etcd's limit of 1.5 MiB.
const REQUEST_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Body of a response: a single chunk or a stream.
pub type Body = BoxBody<Bytes, Infallible>;

/// Answers requests. It must not block; a response that continues uses [`stream`].
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, peer: SocketAddr, request: Request<Bytes>) -> Response<Body>;
}

/// A running server.
#[derive(Debug)]
pub struct HttpServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl HttpServer {
    /// Serves on bound, listening sockets.
    pub fn start(listeners: Vec<TcpListener>, handler: Arc<dyn Handler>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let thread = thread::Builder::new().name("fake".to_owned()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a non-blocking listener");
                    tokio::spawn(accept(listener, Arc::clone(&handler)));
                }
                // The sender is dropped with the server, which ends this wait.
                drop(stopped.await);
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a fake server panicked");
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, handler: Arc<dyn Handler>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        let service = service_fn(move |request: Request<Incoming>| {
            let handler = Arc::clone(&handler);
            async move {
                let (head, body) = request.into_parts();
                let Ok(body) = Limited::new(body, REQUEST_BODY_BYTES_MAX).collect().await else {
                    return Ok::<_, Infallible>(answer(413, "text/plain", "request body too long\n"));
                };
                Ok(handler.answer(peer, Request::from_parts(head, body.to_bytes())))
            }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A client may disconnect at any time.
            drop(connection.await);
        });
    }
}

/// Returns a response in one piece.
pub fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).boxed();
    Response::builder().status(status).header("content-type", content_type).body(body).expect("a valid response")
}

/// Returns a response that continues: each chunk sent into the channel goes out at once.
pub fn stream(content_type: &str) -> (http_body_util::channel::Sender<Bytes>, Response<Body>) {
    /// Chunks that may wait for a slow reader.
    const PIECES_MAX: usize = 16;
    let (sender, body) = Channel::new(PIECES_MAX);
    let response = Response::builder().header("content-type", content_type).body(body.boxed());
    (sender, response.expect("a valid response"))
}

//! One HTTP/2 connection to one server: TCP, TLS, HTTP/2.
//!
//! tonic's own channel reconnects by itself and keeps choosing dead addresses; this connection never reconnects, and
//! its end is visible.

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kiam_common::{proto::kiam_service_client::KiamServiceClient, tls};
use rustls::pki_types::ServerName;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower_service::Service;

/// Time limit of the TCP handshake: a server in the same cluster answers a SYN in milliseconds, and one SYN may be
/// lost.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time limit of the TLS handshake: two round trips, and a signature on a server that may be busy with a thousand
/// agents.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time after which unacknowledged bytes end the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest answer, bytes: credentials are below 4 KiB, a role's ARN below 2 KiB.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// A failed attempt to connect to an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect")]
    Tcp(#[source] io::Error),
    #[error("TLS failed; the server's certificate must be valid for the host of --server-address and signed by --ca")]
    Tls(#[source] io::Error),
    #[error("HTTP/2 failed; check that --server-address is a kiam server")]
    Http2(#[source] hyper::Error),
    #[error("--server-address cannot be written as a URI")]
    Uri(#[source] http::Error),
    #[error("the TCP handshake timed out")]
    TcpTimeout(#[source] Elapsed),
    #[error("the TLS handshake timed out")]
    TlsTimeout(#[source] Elapsed),
}

/// An open connection, for the generated client.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<Body>,
}

/// The task that moves the connection's bytes. It ends with the connection, and ends the connection on drop.
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    /// Waits for the end of the connection.
    pub(super) async fn ended(&mut self) {
        if let Err(error) = (&mut self.0).await {
            tracing::debug!(%error, "the task of the connection failed");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to `address`; the server's certificate must be valid for `name`.
pub(super) async fn connect(
    address: SocketAddr,
    name: ServerName<'static>,
    authority: &str,
    tls: &tls::Client,
) -> Result<(KiamServiceClient<Connection>, Driver), ConnectError> {
    let origin = Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
    let origin = origin.map_err(ConnectError::Uri)?;
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let tcp = tcp.map_err(ConnectError::TcpTimeout)?.map_err(ConnectError::Tcp)?;
    tune(&tcp).map_err(ConnectError::Tcp)?;
    let handshake = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(tls.config()).connect(name, tcp)).await;
    let stream = handshake.map_err(ConnectError::TlsTimeout)?.map_err(ConnectError::Tls)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http2)?;
    let driver = Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "the connection to the server ended");
        }
    }));
    let client =
        KiamServiceClient::with_origin(Connection { sender }, origin).max_decoding_message_size(MESSAGE_LEN_MAX);
    Ok((client, driver))
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIME_MAX))
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Always ready: the generated client would convert an error here into one that looks like the server's.
    /// [`Self::call`] on a closed connection fails like any other call.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

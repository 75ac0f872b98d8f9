//! One HTTP/2 connection to one server: TCP, TLS, HTTP/2.
//!
//! tonic's own channel reconnects by itself and keeps choosing dead addresses; this one lives once, and its end is seen.

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

/// A server in the same cluster answers a SYN in milliseconds; this includes one that was lost and sent again.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For TLS: two round trips, and a signature on a server that may be busy with a thousand agents.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that stay unacknowledged for this long end the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);
/// Longest answer, bytes: credentials are below 4 KiB, a role's ARN below 2 KiB.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// Why there is no connection to an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection")]
    Tcp(#[source] io::Error),
    #[error("TLS failed; the server's certificate must carry the host of --server-address and come from --ca")]
    Tls(#[source] io::Error),
    #[error("HTTP/2 failed; is this a kiam server?")]
    Http2(#[source] hyper::Error),
    #[error("the server's name makes no URI")]
    Uri(#[source] http::Error),
    #[error("not even the TCP connection within the time for one")]
    TcpTimeout(#[source] Elapsed),
    #[error("no TLS within the time for it")]
    TlsTimeout(#[source] Elapsed),
}

/// An open connection, as the generated client uses it.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<Body>,
}

/// The task that moves the connection's bytes; ends when the connection does, and ends it when dropped.
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    /// Waits for the connection's end.
    pub(super) async fn ended(&mut self) {
        if let Err(error) = (&mut self.0).await {
            tracing::debug!(%error, "the connection's task ended badly");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to `address`, where a server named `name` should be.
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
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Always: the generated client would turn a failure here into one that looks as if the server had sent it.
    /// [`Self::call`] on a connection that is over fails as any other call.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

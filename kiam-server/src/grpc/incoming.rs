//! From the listening socket to connections whose other end has shown a good certificate.

use futures::Stream;
use kiam_common::tls;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

/// Most connections: two agents on each of 5,000 nodes, the largest cluster that Kubernetes supports, and room.
const CONNECTIONS_MAX: usize = 12_000;
/// Handshakes at a time; each costs a signature, and the rest wait in the backlog.
const HANDSHAKES_MAX: usize = 128;
/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait to be taken over after their handshake.
const READY_CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept (no file descriptor left), so that it doesn't spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connections as they come out of their handshakes.
pub(crate) struct Incoming(mpsc::Receiver<Connection>);

/// A connection of an agent.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    /// Its place among [`CONNECTIONS_MAX`].
    _place: OwnedSemaphorePermit,
}

/// The connections, and the loop that accepts them: it ends when nobody takes them any more.
pub(crate) fn accept(listener: TcpListener, tls: Arc<tls::Server>) -> (Incoming, impl Future<Output = ()> + Send) {
    let (ready, taken) = mpsc::channel(READY_CONNECTIONS_MAX);
    (Incoming(taken), accept_all(listener, tls, ready))
}

async fn accept_all(listener: TcpListener, tls: Arc<tls::Server>, ready: mpsc::Sender<Connection>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.len() >= HANDSHAKES_MAX {
            handshakes.join_next().await;
        }
        while handshakes.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let acceptor = TlsAcceptor::from(tls.config());
                handshakes.spawn(handshake(acceptor, stream, place, ready.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    ready: mpsc::Sender<Connection>,
) {
    let peer = match stream.set_nodelay(true).and_then(|()| stream.peer_addr()) {
        Ok(peer) => peer,
        Err(error) => return tracing::debug!(%error, "a connection ended before it began"),
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Nobody takes it: the server stops.
            drop(ready.send(Connection { stream, _place: place }).await);
        }
        // Somebody spoke TLS, and we disagreed.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%peer, reason = tls::reason(&error), "no connection with an agent");
        }
        // A probe of the port, or a client that left.
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended during its handshake"),
        Err(_elapsed) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

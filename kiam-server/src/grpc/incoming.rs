//! Accepting connections, and their TLS handshakes: an agent must present a valid certificate.

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

/// Most connections: two agents on each of 5,000 nodes, the largest cluster that Kubernetes supports, and reserve.
const CONNECTIONS_MAX: usize = 12_000;
/// Most concurrent handshakes; each costs a signature, and further ones wait in the backlog.
const HANDSHAKES_MAX: usize = 128;
/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most connections that wait to be served after their handshake.
const READY_CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept (no file descriptor left), so that the loop doesn't spin.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that have completed their handshakes.
pub(crate) struct Incoming(mpsc::Receiver<Connection>);

/// A connection of an agent.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    /// Slot of [`CONNECTIONS_MAX`].
    _slot: OwnedSemaphorePermit,
}

/// Returns the connections, and the loop that accepts them, which ends when the connections are dropped.
pub(crate) fn accept(listener: TcpListener, tls: Arc<tls::Server>) -> (Incoming, impl Future<Output = ()> + Send) {
    let (ready, taken) = mpsc::channel(READY_CONNECTIONS_MAX);
    (Incoming(taken), accept_all(listener, tls, ready))
}

async fn accept_all(listener: TcpListener, tls: Arc<tls::Server>, ready: mpsc::Sender<Connection>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.len() >= HANDSHAKES_MAX {
            handshakes.join_next().await;
        }
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let acceptor = TlsAcceptor::from(tls.config());
                handshakes.spawn(handshake(acceptor, stream, slot, ready.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    ready: mpsc::Sender<Connection>,
) {
    let peer = match stream.set_nodelay(true).and_then(|()| stream.peer_addr()) {
        Ok(peer) => peer,
        Err(error) => return tracing::debug!(%error, "connection closed before the handshake"),
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // An error means that the server is stopping.
            drop(ready.send(Connection { stream, _slot: slot }).await);
        }
        // The client speaks TLS, but the handshake failed.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%peer, reason = tls::reason(&error), "refused a connection: TLS handshake failed");
        }
        // A TCP probe, or a client that disconnected.
        Ok(Err(error)) => tracing::debug!(%peer, %error, "connection closed during the handshake"),
        Err(_elapsed) => tracing::debug!(%peer, "TLS handshake timed out"),
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

//! The metadata service as pods see it: HTTP/1 on the listening sockets that the kernel hands pods' connections to.
//!
//! In the order of a request's life: [`places`] (how many connections, and whose), [`connection`] (its bytes and its
//! time), [`caller`] (whose it is), [`request`] (what is refused unread), [`route`] (what is asked), [`token`] (IMDSv2),
//! [`handler`] (all of it), [`answer`] and [`document`] (what the pod reads). [`limits`] has every bound.

mod answer;
mod caller;
mod connection;
mod document;
mod handler;
pub(crate) mod limits;
mod phase;
mod places;
mod request;
mod route;
mod stream;
mod token;

pub(crate) use caller::{Ingress, Interfaces, KernelIngress};
pub(crate) use token::{Tokens, boot_id};

use crate::{config::ImdsV1, metrics::Metrics, source::CredentialSource};
use caller::Peer;
use places::{Full, Places};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

/// Everything that answering takes.
pub(crate) struct Face<S, I> {
    /// Whose pods have which roles.
    pub(crate) source: S,
    /// What the kernel tells of a connection.
    pub(crate) ingress: I,
    /// The interfaces that pods are behind, as of the parent's last message.
    pub(crate) interfaces: watch::Receiver<Arc<Interfaces>>,
    /// IMDSv2.
    pub(crate) tokens: Tokens,
    /// Requests without a token.
    pub(crate) v1: ImdsV1,
    /// Shared with the admin face.
    pub(crate) metrics: Arc<Metrics>,
}

/// A [`Face`] that is open for connections.
pub(crate) struct Service<S, I> {
    face: Arc<Face<S, I>>,
    places: Arc<Places>,
    stop: watch::Sender<bool>,
}

impl<S: CredentialSource, I: Ingress> Service<S, I> {
    /// Nothing is accepted yet.
    pub(crate) fn new(face: Face<S, I>) -> Self {
        let places = Arc::new(Places::new(face.metrics.connections().clone()));
        Self { face: Arc::new(face), places, stop: watch::Sender::new(false) }
    }

    /// Accepts connections until [`Self::stop`].
    pub(crate) async fn accept_from(&self, listener: TcpListener) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_of_the_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::error!(%error, "connections of pods cannot be accepted");
                    sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Refuses new connections, lets those that are being answered end, for at most `patience`.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.stop.send_replace(true);
        if timeout(patience, self.places.empty()).await.is_err() {
            tracing::warn!(?patience, "connections of pods are cut off: they did not end in time");
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let (face, peer) = match self.peer(&stream, peer) {
            Some(peer) => (Arc::clone(&self.face), peer),
            None => return,
        };
        match self.places.take(peer.address) {
            Ok(place) => {
                let stop = self.stop.subscribe();
                tokio::spawn(connection::serve(face, stream, peer, place, stop));
            }
            Err(full) => {
                let reason = match full {
                    Full::OfThisPod => "limit-pod",
                    Full::Altogether => "limit-all",
                };
                self.face.metrics.connection_ended(reason);
                tracing::debug!(peer = %peer.address, reason, "connection refused");
                if let Some(turn) = self.places.turn_away() {
                    tokio::spawn(connection::refuse(stream, turn));
                }
            }
        }
    }

    /// Whose connection it is; `None`: nobody's that may be answered, so not one of its bytes is read.
    fn peer(&self, stream: &TcpStream, peer: SocketAddr) -> Option<Peer> {
        match stream.local_addr() {
            Ok(local) if self.face.ingress.is_imds(local) => {}
            Ok(local) => {
                self.face.metrics.connection_ended("not-imds");
                tracing::warn!(%peer, %local, "a connection to another address than the metadata service's is refused");
                return None;
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a connection was gone before it was served");
                return None;
            }
        }
        Some(Peer::new(peer, self.face.ingress.interface(stream)))
    }
}

/// Whether accept failed because of this one connection (accept(2) passes its pending errors on).
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;

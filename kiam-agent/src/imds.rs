//! The metadata service as pods see it: HTTP/1 on the listening sockets that the kernel hands pods' connections to.
//!
//! In the order of a request's life: [`slots`] (how many connections, and whose), [`connection`] (its bytes and its
//! time), [`caller`] and [`attribution`] (whose it is), [`request`] (what is refused unread), [`route`] (what is asked), [`token`] (IMDSv2),
//! [`handler`] (all of it), [`answer`] and [`document`] (what the pod reads). [`limits`] has every bound.

mod answer;
mod attribution;
mod connection;
mod connection_limits;
mod document;
mod handler;
pub(crate) mod limits;
mod peer;
mod phase;
mod request;
mod route;
mod stream;
mod token;

pub(crate) use attribution::{Attribution, Interfaces};
pub(crate) use peer::{ArrivedBy, Ingress};
pub(crate) use token::{Tokens, boot_id};

use crate::{
    attestation::{Question, SocketOwner},
    config::ImdsV1,
    metrics::Metrics,
    source::CredentialSource,
};
use connection_limits::{ConnectionSlots, Full, Slot};
use kiam_common::abi::BY_HOOK_NODE;
use peer::{Arrival, Holder, Peer, PendingAttestation};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// The metadata service of this node.
pub(crate) struct ImdsServer<S> {
    source: S,
    attribution: Attribution,
    tokens: Tokens,
    /// The treatment of requests without a token.
    v1: ImdsV1,
    metrics: Arc<Metrics>,
    slots: Arc<ConnectionSlots>,
    /// Bounds connections whose pod is not yet known.
    anonymous: Arc<Semaphore>,
    /// Every task that accepts connections or has one keeps a receiver until it ends, so that the last one is noticed.
    stop: watch::Sender<bool>,
}

impl<S: CredentialSource> ImdsServer<S> {
    /// Returns a server that accepts nothing until [`Self::accept_from`].
    pub(crate) fn new(
        source: S,
        attribution: Attribution,
        tokens: Tokens,
        v1: ImdsV1,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            attribution,
            tokens,
            v1,
            slots: Arc::new(ConnectionSlots::new(metrics.connections().clone())),
            metrics,
            anonymous: Arc::new(Semaphore::new(limits::ANONYMOUS_MAX as usize)),
            stop: watch::Sender::new(false),
        })
    }

    /// Accepts connections until [`Self::stop`]; and then, where nobody else accepts (`alone`), those that wait.
    pub(crate) async fn accept_from(self: &Arc<Self>, listener: TcpListener, ingress: &impl Ingress, alone: bool) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(ingress, stream, peer),
                Err(error) if is_of_the_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::error!(%error, "connections of pods cannot be accepted");
                    sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
        if alone {
            match listener.into_std() {
                Ok(listener) => self.admit_waiting(ingress, &listener),
                Err(error) => tracing::warn!(%error, "connections that wait to be accepted are cut off"),
            }
        }
    }

    /// Accepts no more connections, lets those that are being answered, or have just begun, end, for at most `patience`.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.stop.send_replace(true);
        if timeout(patience, self.stop.closed()).await.is_err() {
            tracing::warn!(?patience, "connections of pods are cut off: they did not end in time");
        }
    }

    /// Those that have come, whether the runtime has heard of them yet or not.
    fn admit_waiting(self: &Arc<Self>, ingress: &impl Ingress, listener: &std::net::TcpListener) {
        for _ in 0..limits::ANONYMOUS_MAX {
            let accepted = listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.admit(ingress, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
            }
        }
    }

    /// A connection that came by no way of pods, or whose pod is not known, is ended before one of its bytes is read.
    fn admit(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr) {
        let arrived_by = match stream.local_addr() {
            Ok(local) => ingress.arrived_by(local).ok_or(local),
            Err(error) => return tracing::debug!(%peer, %error, "a connection was gone before it was served"),
        };
        match arrived_by {
            Ok(ArrivedBy::Interface) => self.admit_by_interface(ingress, stream, peer),
            Ok(ArrivedBy::Hook(hook)) => self.admit_by_hook(ingress, stream, peer, hook),
            Err(local) => {
                self.metrics.connection_ended("not-imds");
                tracing::warn!(%peer, %local, "a connection to another address than the metadata service's is refused");
            }
        }
    }

    /// Nothing waits for what the kernel knows of the socket: a session token is the peer's wherever its cgroup is.
    fn admit_by_interface(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        // Before the parent is asked: a pod that has too many connections keeps it from nothing.
        let Some((stream, slot)) = self.slot(stream, Holder::Address(address)) else { return };
        let index = ingress
            .interface(&stream)
            .inspect_err(|error| tracing::warn!(%peer, %error, "the kernel does not tell a connection's interface"))
            .ok();
        let attestation = match index {
            Some(index) if self.attribution.asks() => {
                PendingAttestation::new(ingress.attest(Question::new(index, address, peer.port())))
            }
            _ => PendingAttestation::new(std::future::ready(None)),
        };
        self.serve(stream, Peer { address, arrival: Arrival::Interface { index, attestation } }, slot);
    }

    /// Only the record tells whose it is; there is none when no hook sent the connection here.
    fn admit_by_hook(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr, hook: u32) {
        let Ok(turn) = Arc::clone(&self.anonymous).try_acquire_owned() else {
            return self.metrics.connection_ended("limit-all");
        };
        let address = peer.ip().to_canonical();
        let attestation = ingress.attest(Question::new(hook, address, peer.port()));
        let (server, stop) = (Arc::clone(self), self.stop.subscribe());
        tokio::spawn(async move {
            let origin = timeout(limits::ANSWER_TIME_MAX, attestation).await.ok().flatten();
            let Some(SocketOwner::Pod(pod)) = origin.map(|origin| origin.owner) else {
                server.metrics.connection_ended("no-record");
                return tracing::warn!(%peer, ?origin, "a connection that no hook can have sent from a pod is refused");
            };
            let Some((stream, slot)) = server.slot(stream, Holder::Pod(pod)) else { return };
            let arrival = Arrival::Hook { pod, on_node_network: hook == BY_HOOK_NODE };
            server.serve(stream, Peer { address, arrival }, slot);
            drop((turn, stop));
        });
    }

    /// A place for the connection; where there is none, it is told so.
    fn slot(&self, stream: TcpStream, holder: Holder) -> Option<(TcpStream, Slot)> {
        let full = match self.slots.take(holder) {
            Ok(slot) => return Some((stream, slot)),
            Err(full) => full,
        };
        let reason = match full {
            Full::OfThisPod => "limit-pod",
            Full::Altogether => "limit-all",
        };
        self.metrics.connection_ended(reason);
        tracing::debug!(?holder, reason, "connection refused");
        if let Some(turn) = self.slots.refusal_permit() {
            tokio::spawn(connection::refuse(stream, turn, self.stop.subscribe()));
        }
        None
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: Peer, slot: Slot) {
        let stop = self.stop.subscribe();
        tokio::spawn(connection::serve(Arc::clone(self), stream, peer, slot, stop));
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

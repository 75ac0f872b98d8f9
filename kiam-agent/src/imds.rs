//! The metadata service for pods: HTTP/1 on the listeners to which the kernel redirects pods' connections.
//!
//! The modules in the order of a request's life: [`connection_limits`], [`connection`] with [`stream`] and [`phase`]
//! (bytes and time limits), [`peer`] and [`attribution`] (the pod), [`handler`] (one request), [`request`] (checks
//! before the look-up), [`route`], [`token`] (IMDSv2), [`answer`] and [`document`]. [`limits`] has every bound.

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
    v1: ImdsV1,
    metrics: Arc<Metrics>,
    slots: Arc<ConnectionSlots>,
    /// Bounds connections of unknown pods.
    anonymous: Arc<Semaphore>,
    /// Each task that accepts or serves connections keeps a receiver until it ends, so that `closed` waits for the last
    /// one.
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

    /// Accepts connections until [`Self::stop`]. With `alone`, when no other process accepts from this socket, it then
    /// also accepts those that wait.
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
                Err(error) if is_connection_error(&error) => {
                    tracing::debug!(%error, "connection closed before it was accepted");
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections of pods; retrying");
                    sleep(limits::ACCEPT_PAUSE).await;
                }
            }
        }
        if alone {
            match listener.into_std() {
                Ok(listener) => self.admit_waiting(ingress, &listener),
                Err(error) => tracing::warn!(%error, "cutting off connections of pods that wait to be accepted"),
            }
        }
    }

    /// Accepts no more connections, and waits at most `drain_time` for those that are being answered or have just
    /// begun.
    pub(crate) async fn stop(&self, drain_time: Duration) {
        self.stop.send_replace(true);
        if timeout(drain_time, self.stop.closed()).await.is_err() {
            tracing::warn!(?drain_time, "cutting off connections of pods that did not end in time");
        }
    }

    /// Admits the connections that wait to be accepted, even if the runtime has not noticed them yet.
    fn admit_waiting(self: &Arc<Self>, ingress: &impl Ingress, listener: &std::net::TcpListener) {
        for _ in 0..limits::ANONYMOUS_MAX {
            let accepted = listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.admit(ingress, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_connection_error(&error) => {
                    tracing::debug!(%error, "connection closed before it was accepted");
                }
                Err(error) => return tracing::warn!(%error, "cannot accept the connections of pods that wait"),
            }
        }
    }

    /// Serves a connection of a pod. Any other connection is closed before a byte of it is read.
    fn admit(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr) {
        let arrived_by = match stream.local_addr() {
            Ok(local) => ingress.arrived_by(local).ok_or(local),
            Err(error) => return tracing::debug!(%peer, %error, "connection closed before it was served"),
        };
        match arrived_by {
            Ok(ArrivedBy::Interface) => self.admit_by_interface(ingress, stream, peer),
            Ok(ArrivedBy::Hook(hook)) => self.admit_by_hook(ingress, stream, peer, hook),
            Err(local) => {
                self.metrics.connection_ended("not-imds");
                tracing::warn!(%peer, %local, "refused: connection to an address that is not the IMDS");
            }
        }
    }

    /// Starts the attestation and does not wait for it: a session token is bound to the peer, whatever its cgroup is.
    fn admit_by_interface(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        // Before the attestation, so that a pod with too many connections does not keep the parent busy.
        let Some((stream, slot)) = self.slot(stream, Holder::Address(address)) else { return };
        let index = ingress
            .interface(&stream)
            .inspect_err(|error| tracing::warn!(%peer, %error, "cannot read the interface of a connection"))
            .ok();
        let attestation = match index {
            Some(index) if self.attribution.needs_attestation() => {
                PendingAttestation::new(ingress.attest(Question::new(index, address, peer.port())))
            }
            _ => PendingAttestation::new(std::future::ready(None)),
        };
        self.serve(stream, Peer { address, arrival: Arrival::Interface { index, attestation } }, slot);
    }

    /// Waits for the connection record, which alone identifies the pod. It is missing if no hook sent the connection
    /// here.
    fn admit_by_hook(self: &Arc<Self>, ingress: &impl Ingress, stream: TcpStream, peer: SocketAddr, hook: u32) {
        let Ok(permit) = Arc::clone(&self.anonymous).try_acquire_owned() else {
            return self.metrics.connection_ended("limit-all");
        };
        let address = peer.ip().to_canonical();
        let attestation = ingress.attest(Question::new(hook, address, peer.port()));
        let (server, stop) = (Arc::clone(self), self.stop.subscribe());
        tokio::spawn(async move {
            let origin = timeout(limits::ANSWER_TIME_MAX, attestation).await.ok().flatten();
            let Some(SocketOwner::Pod(pod)) = origin.map(|origin| origin.owner) else {
                server.metrics.connection_ended("no-record");
                tracing::warn!(%peer, ?origin, "refused: connection to the hook listener without a matching record");
                return;
            };
            let Some((stream, slot)) = server.slot(stream, Holder::Pod(pod)) else { return };
            let arrival = Arrival::Hook { pod, on_node_network: hook == BY_HOOK_NODE };
            server.serve(stream, Peer { address, arrival }, slot);
            drop((permit, stop));
        });
    }

    /// Returns a slot for the connection, or refuses it with 429 if all are taken.
    fn slot(&self, stream: TcpStream, holder: Holder) -> Option<(TcpStream, Slot)> {
        let full = match self.slots.take(holder) {
            Ok(slot) => return Some((stream, slot)),
            Err(full) => full,
        };
        let reason = match full {
            Full::Pod => "limit-pod",
            Full::Total => "limit-all",
        };
        self.metrics.connection_ended(reason);
        tracing::debug!(?holder, reason, "connection refused");
        if let Some(permit) = self.slots.refusal_permit() {
            tokio::spawn(connection::refuse(stream, permit, self.stop.subscribe()));
        }
        None
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, peer: Peer, slot: Slot) {
        let stop = self.stop.subscribe();
        tokio::spawn(connection::serve(Arc::clone(self), stream, peer, slot, stop));
    }
}

/// Returns true if accept failed because of the accepted connection (accept(2) returns its pending errors).
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;

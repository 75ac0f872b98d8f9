//! The peer of a connection, from kernel evidence: addresses, the interface, and the pod's cgroup. What a client claims
//! about itself is never used.

use crate::attestation::{Origin, PodUid, Question, SocketOwner};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};
use tokio::net::TcpStream;

/// The kernel's evidence about accepted connections.
pub(crate) trait Ingress: Send + Sync + 'static {
    /// Returns how a connection with this local address arrived; `None` if no connection of a pod can have this
    /// address.
    fn arrived_by(&self, local: SocketAddr) -> Option<ArrivedBy>;

    /// Returns the index of the interface by which the connection arrived.
    fn interface(&self, connection: &TcpStream) -> io::Result<u32>;

    /// Returns the origin of a connection; `None` if it cannot be determined. The question is sent at once, before the
    /// future is polled.
    fn attest(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static;
}

/// The way by which a connection arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArrivedBy {
    /// An interface; the connection's local address is the IMDS.
    Interface,
    /// A cgroup hook, which redirected it to the own address of a listener; `abi::BY_HOOK_NODE` or `abi::BY_HOOK_POD`.
    Hook(u32),
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Never v4-mapped.
    pub(crate) address: IpAddr,
    pub(crate) arrival: Arrival,
}

/// The way by which a connection arrived, with the evidence for its pod.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    /// An interface.
    Interface {
        /// Index of the interface; `None` if the kernel did not report it.
        index: Option<u32>,
        /// The origin of the connection.
        attestation: PendingAttestation,
    },
    /// A cgroup hook.
    Hook {
        /// The pod of the cgroup in which the connection was opened.
        pod: PodUid,
        /// True if the pod's socket is in the node's network namespace; then its address does not identify the pod.
        on_node_network: bool,
    },
}

/// The holder of a connection slot. A slot is needed before the pod at an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// The pod at an address.
    Address(IpAddr),
    /// An attested pod, which may share its address with others.
    Pod(PodUid),
}

impl Peer {
    /// Returns the pod of the cgroup in which the connection was opened, if that is already known.
    pub(crate) fn attested(&self) -> Option<PodUid> {
        match &self.arrival {
            Arrival::Interface { attestation, .. } => match attestation.0.peek() {
                Some(Some(Origin { owner: SocketOwner::Pod(uid), .. })) => Some(*uid),
                _ => None,
            },
            Arrival::Hook { pod, .. } => Some(*pod),
        }
    }

    /// Returns the index of the interface by which the connection arrived, if the kernel reported one.
    pub(crate) const fn interface(&self) -> Option<u32> {
        match self.arrival {
            Arrival::Interface { index, .. } => index,
            Arrival::Hook { .. } => None,
        }
    }
}

/// The attestation of a connection, which is made once and kept for the life of the connection.
#[derive(Clone)]
pub(crate) struct PendingAttestation(Shared<BoxFuture<'static, Option<Origin>>>);

impl PendingAttestation {
    /// Wraps the pending answer.
    pub(crate) fn new(answer: impl Future<Output = Option<Origin>> + Send + 'static) -> Self {
        Self(answer.boxed().shared())
    }

    /// Waits for the origin; `None` if it cannot be determined.
    pub(crate) async fn answer(&self) -> Option<Origin> {
        self.0.clone().await
    }
}

impl fmt::Debug for PendingAttestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.peek() {
            Some(answer) => answer.fmt(f),
            None => f.write_str("pending"),
        }
    }
}

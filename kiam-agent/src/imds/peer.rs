//! What the kernel tells of a connection: where it went, where it came from, by which interface, and out of which pod's
//! cgroup. What a client says of itself is never asked.

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

/// What the kernel tells of an accepted connection.
pub(crate) trait Ingress: Send + Sync + 'static {
    /// How a connection came whose local address is this; `None`: by no way that a pod's connection takes.
    fn arrived_by(&self, local: SocketAddr) -> Option<ArrivedBy>;

    /// The index of the interface that the connection came in by.
    ///
    /// # Errors
    /// The kernel's.
    fn interface(&self, connection: &TcpStream) -> io::Result<u32>;

    /// Who opened a connection. Asked at once; `None`: nobody can tell.
    fn attest(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static;
}

/// How a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArrivedBy {
    /// By an interface, with M as its local address.
    Interface,
    /// By a cgroup hook, which sent it to a listener's own address; `abi::BY_HOOK_NODE` or `abi::BY_HOOK_POD`.
    Hook(u32),
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Never v4-mapped.
    pub(crate) address: IpAddr,
    pub(crate) arrival: Arrival,
}

/// How a connection came, and what is known by that.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    /// By an interface.
    Interface {
        /// Its index; `None` when the kernel could not tell.
        index: Option<u32>,
        /// What is known of the socket that opened the connection.
        attestation: PendingAttestation,
    },
    /// By a hook, out of this pod's cgroup.
    Hook {
        /// The pod.
        pod: PodUid,
        /// Whether the pod's socket is in the node's network namespace: then its address tells nothing.
        on_node_network: bool,
    },
}

/// Whose a connection counts as, long before it is known which pod that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Whoever is at the address.
    Address(IpAddr),
    /// A pod that shares its address with others.
    Pod(PodUid),
}

impl Peer {
    /// The pod whose cgroup the connection came from, as far as that is known by now.
    pub(crate) fn attested(&self) -> Option<PodUid> {
        match &self.arrival {
            Arrival::Interface { attestation, .. } => match attestation.0.peek() {
                Some(Some(Origin { owner: SocketOwner::Pod(uid), .. })) => Some(*uid),
                _ => None,
            },
            Arrival::Hook { pod, .. } => Some(*pod),
        }
    }

    /// The index of the interface that the connection came in by, if it came by one and the kernel told which.
    pub(crate) const fn interface(&self) -> Option<u32> {
        match self.arrival {
            Arrival::Interface { index, .. } => index,
            Arrival::Hook { .. } => None,
        }
    }
}

/// A question that was asked once and is answered once, for as long as the connection lives.
#[derive(Clone)]
pub(crate) struct PendingAttestation(Shared<BoxFuture<'static, Option<Origin>>>);

impl PendingAttestation {
    /// Keeps the answer.
    pub(crate) fn new(answer: impl Future<Output = Option<Origin>> + Send + 'static) -> Self {
        Self(answer.boxed().shared())
    }

    /// The answer; `None`: nobody can tell.
    pub(crate) async fn answer(&self) -> Option<Origin> {
        self.0.clone().await
    }
}

impl fmt::Debug for PendingAttestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.peek() {
            Some(answer) => answer.fmt(f),
            None => f.write_str("asked"),
        }
    }
}

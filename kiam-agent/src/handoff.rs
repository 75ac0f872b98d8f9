//! The language of the two processes of the agent: what the privileged parent hands to the worker at its start, and
//! what they tell each other afterwards.
//!
//! The control socket is the worker's standard input. The parent sends one message with the sockets attached, then JSON
//! lines ([`ToWorker`]). The worker answers with single bytes ([`ToParent`]), so that the parent parses nothing that
//! comes from a process that pods talk to.

use kiam_common::{abi::SLOTS, secret::Secret};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
};

/// Bytes of the key that seals session tokens (ChaCha20-Poly1305, RFC 8439).
pub(crate) const TOKEN_KEY_LEN: usize = 32;
/// Most descriptors that are handed over: the witness and the listening sockets.
const MAX_DESCRIPTORS: usize = 1 + SLOTS as usize;

/// What the worker gets at its start.
pub(crate) struct Handoff {
    /// The listening sockets that pods' connections come to, non-blocking.
    pub(crate) listeners: Vec<TcpListener>,
    /// Seals session tokens; the same for the old and the new agent of an upgrade.
    pub(crate) token_key: Secret<[u8; TOKEN_KEY_LEN]>,
    /// The worker's end of the socket that it asks over who opened a connection (`crate::attestation`).
    pub(crate) witness: UnixDatagram,
    /// The worker's end of the control socket.
    pub(crate) control: UnixStream,
}

/// What the parent tells the worker, one JSON document a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// All interfaces that the TC program is attached to; sent before a new one can carry a connection.
    Interfaces(Vec<Interface>),
    /// How the datapath is, every few seconds and at every change.
    Status(Status),
    /// Finish what has begun, and end. The socket's end says something else: the parent has died.
    Stop,
}

/// What an interface is, as far as it matters for whose connections come by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InterfaceKind {
    /// The node's end of a pair: the kernel knows the sockets at the other end.
    Veth,
    /// A bridge: what is known of a connection is known at its ports.
    Bridge,
    /// Anything else, a virtual machine's for instance: the sockets behind it are another kernel's.
    Other,
}

/// An interface that pods are behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// The kernel's index, unique within the network namespace as long as it runs.
    pub(crate) index: u32,
    /// The interface's name.
    pub(crate) name: String,
    /// When the agent saw it appear: milliseconds of `CLOCK_MONOTONIC`. `None`: it was there before the agent.
    pub(crate) born_ms: Option<u64>,
    /// Index of the bridge that it is a port of: connections come in by the bridge then.
    pub(crate) bridge: Option<u32>,
    /// What it is.
    pub(crate) kind: InterfaceKind,
}

/// How the datapath is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// What must hold for the agent to be ready.
    pub(crate) conditions: Vec<Condition>,
    /// Packets to M, by interface and reason; the interface is empty for those that the backstop dropped.
    pub(crate) packets: Vec<PacketCount>,
    /// How often something was found missing and set up again, by what it was.
    pub(crate) repairs: BTreeMap<String, u64>,
    /// What the node's owner should know although pods are served.
    pub(crate) notices: Vec<Notice>,
    /// What became of the last probes through the datapath.
    pub(crate) probes: Vec<ProbeResult>,
    /// How often the worker was started.
    pub(crate) worker_starts: u64,
    /// Connections answered by the parent because no worker ran.
    pub(crate) fallback_answers: u64,
}

/// One of the things that must hold for the agent to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// What it is about: `listener`, `fence-ipv4`, …
    pub(crate) name: String,
    /// `None` when it holds, else what is wrong and what to do.
    pub(crate) problem: Option<String>,
}

/// Something that the node's owner should know, and that keeps nobody from being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// What it is about: `foreign-program`, …
    pub(crate) about: String,
    /// What it is, and what to do.
    pub(crate) text: String,
}

/// What became of a probe through the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeResult {
    /// The address family.
    pub(crate) family: String,
    /// The listening socket has answered it.
    pub(crate) answered: bool,
}

/// A counter of the datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketCount {
    /// The interface's name, empty for the backstop.
    pub(crate) interface: String,
    /// `kiam_common::abi::Reason::name`.
    pub(crate) reason: String,
    /// Packets since the maps were made.
    pub(crate) packets: u64,
}

/// What the worker tells the parent: one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToParent {
    /// It accepts connections from now on.
    Ready,
    /// It has reached a server, for the first time since it started.
    ServerReached,
    /// It lives; each second.
    Heartbeat,
}

impl ToParent {
    /// The byte on the wire.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Ready => b'R',
            Self::ServerReached => b'S',
            Self::Heartbeat => b'H',
        }
    }

    /// The message of a byte, if it is one.
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'R' => Some(Self::Ready),
            b'S' => Some(Self::ServerReached),
            b'H' => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// Sends the sockets, the witness first, and the key to a worker that has just been started.
///
/// # Errors
/// The kernel's, when the socket's other end is gone.
pub(crate) fn send(
    control: &UnixStream,
    witness: BorrowedFd<'_>,
    listeners: &[TcpListener],
    token_key: &Secret<[u8; TOKEN_KEY_LEN]>,
) -> io::Result<()> {
    let listeners = listeners.iter().map(|listener| listener.as_fd());
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(witness).chain(listeners).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("more listening sockets than slots"));
    }
    rustix::net::sendmsg(control, &[IoSlice::new(token_key.expose())], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Receives in the worker what [`send`] sent.
///
/// # Errors
/// The kernel's; or `InvalidData` when the process was not started by a parent.
pub(crate) fn receive(control: UnixStream) -> io::Result<Handoff> {
    let mut key = [0; TOKEN_KEY_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(&control, &mut [IoSliceMut::new(&mut key)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten();
    let witness = fds.next().map(UnixDatagram::from);
    let listeners: Vec<TcpListener> = fds.map(TcpListener::from).collect();
    let Some(witness) = witness.filter(|_| received.bytes == TOKEN_KEY_LEN && !listeners.is_empty()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no hand-over on standard input"));
    };
    Ok(Handoff { listeners, token_key: Secret::new(key), witness, control })
}

//! The protocol between the agent's two processes: the handoff from the privileged parent to a new worker, and the
//! messages between them.
//!
//! The control socket is the worker's standard input. The parent sends one message with the sockets attached, then JSON
//! lines ([`ToWorker`]). The worker answers with single bytes ([`ToParent`]), so that the parent parses nothing from
//! the process that pods connect to.

use crate::report::{Interface, Status};
use kiam_common::{abi::SLOTS, secret::Secret};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
};

/// Length in bytes of the key that seals session tokens (ChaCha20-Poly1305, RFC 8439).
pub(crate) const TOKEN_KEY_LEN: usize = 32;
/// Most descriptors in a handoff: the attestation socket and the listening sockets.
const MAX_DESCRIPTORS: usize = 1 + SLOTS as usize;

/// Everything that the worker receives when it starts.
pub(crate) struct Handoff {
    /// The listening sockets for pods' connections, non-blocking.
    pub(crate) listeners: Vec<TcpListener>,
    /// The key that seals session tokens; the two agents of an upgrade share it.
    pub(crate) token_key: Secret<[u8; TOKEN_KEY_LEN]>,
    /// The worker's end of the attestation socket (`crate::attestation`).
    pub(crate) client: UnixDatagram,
    /// The worker's end of the control socket.
    pub(crate) control: UnixStream,
}

/// Returns whether the parent answers on this listener while no worker does. On the others, which are on the node's
/// address (`--redirect=cgroup`), only the worker accepts: their clients may be anyone.
pub(crate) fn is_shared(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.ip().is_loopback())
}

/// Messages of the parent to the worker, one JSON document per line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// All interfaces with the TC program; sent before a new one can carry a connection.
    Interfaces(Vec<Interface>),
    /// State of the datapath; sent every few seconds and after every change.
    Status(Status),
    /// A request to finish open requests and end. The end of the socket means that the parent has died.
    Stop,
}

/// Messages of the worker to the parent, one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToParent {
    /// The worker accepts connections.
    Ready,
    /// The worker has reached a server for the first time since it started.
    ServerReached,
    /// The worker is alive; sent each second.
    Heartbeat,
}

impl ToParent {
    /// Returns the byte on the wire.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Ready => b'R',
            Self::ServerReached => b'S',
            Self::Heartbeat => b'H',
        }
    }

    /// Returns the message that a byte encodes, if it is one.
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'R' => Some(Self::Ready),
            b'S' => Some(Self::ServerReached),
            b'H' => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// Sends the sockets and the key to a new worker. The attestation socket is the first one.
pub(crate) fn send(
    control: &UnixStream,
    client: BorrowedFd<'_>,
    listeners: &[TcpListener],
    token_key: &Secret<[u8; TOKEN_KEY_LEN]>,
) -> io::Result<()> {
    let listeners = listeners.iter().map(|listener| listener.as_fd());
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(client).chain(listeners).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("more listening sockets than slots"));
    }
    rustix::net::sendmsg(control, &[IoSlice::new(token_key.expose())], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Receives in the worker what [`send`] sent. Fails with `InvalidData` if no parent started the process.
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
    let client = fds.next().map(UnixDatagram::from);
    let listeners: Vec<TcpListener> = fds.map(TcpListener::from).collect();
    let Some(client) = client.filter(|_| received.bytes == TOKEN_KEY_LEN && !listeners.is_empty()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no handoff on standard input"));
    };
    Ok(Handoff { listeners, token_key: Secret::new(key), client, control })
}

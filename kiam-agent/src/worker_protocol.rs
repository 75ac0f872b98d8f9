//! The language of the two processes of the agent: what the privileged parent hands to the worker at its start, and
//! what they tell each other afterwards.
//!
//! The control socket is the worker's standard input. The parent sends one message with the sockets attached, then JSON
//! lines ([`ToWorker`]). The worker answers with single bytes ([`ToParent`]), so that the parent parses nothing that
//! comes from a process that pods talk to.

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
    pub(crate) client: UnixDatagram,
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
    let client = fds.next().map(UnixDatagram::from);
    let listeners: Vec<TcpListener> = fds.map(TcpListener::from).collect();
    let Some(client) = client.filter(|_| received.bytes == TOKEN_KEY_LEN && !listeners.is_empty()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no hand-over on standard input"));
    };
    Ok(Handoff { listeners, token_key: Secret::new(key), client, control })
}

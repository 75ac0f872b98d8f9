//! Takeover: one agent follows another on a node. The successor asks the predecessor, the active agent, over a unix
//! socket in `--run-dir`:
//!
//! ```text
//! successor                                  predecessor
//!   TakeOver ─────────────────────────────▶
//!            ◀───────────────────────────── Welcome: the ages of the interfaces
//!   … its worker starts and reaches a server; the predecessor answers pods and goes on reconciling …
//!   Take     ─────────────────────────────▶
//!            ◀───────────────────────────── Given: it has stopped reconciling
//!   … claims the datapath: puts its listeners into the slots and its programs behind the links …
//!   Done     ─────────────────────────────▶ drains, then goes on standby
//! ```
//!
//! Each message is a line of JSON. If the successor disconnects before `Done`, the predecessor claims the datapath
//! again. A predecessor that does not answer is given up for dead. A standby agent keeps a connection open
//! ([`until_agent_ends`]) and takes over when the active agent ends. In the order of an upgrade: [`lock`],
//! [`successor`], [`predecessor`].

mod lock;
mod predecessor;
mod successor;

pub(super) use lock::TakeoverLock;
pub(super) use predecessor::{Successor, Successors};
pub(super) use successor::{Predecessor, is_served, request, until_agent_ends};

use crate::files;
use anyhow::{Context as _, bail};
use kiam_common::abi::LAYOUT;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Version of the protocol. An agent with another one is refused.
const PROTOCOL: u32 = 1;
/// Name of the active agent's socket, in `--run-dir`.
const SOCKET: &str = "agent.sock";
/// Time that an agent has to answer: its longest work without a pause is loading the programs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a successor has from `Given` to `Done`, and the addition for each interface. With another layout it
/// creates a link for each interface, which waits for the kernel (20 ms seen); with the same one it updates the links
/// (0.1 ms).
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(10);
const TAKEOVER_TIME_PER_INTERFACE: Duration = Duration::from_millis(50);
/// Longest line in bytes: the ages of 8,192 interfaces with 40 bytes each.
const LINE_LEN_MAX: u64 = 1024 * 1024;

/// Messages of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Successor: a request to take over.
    TakeOver(AgentInfo),
    /// Standby agent: a request for a connection that ends with the active agent.
    Watch,
    /// Predecessor: the request is accepted.
    Welcome {
        /// The predecessor.
        about: AgentInfo,
        /// Index of each interface, and when it appeared: milliseconds of `CLOCK_MONOTONIC`.
        #[serde(rename = "births")]
        interface_ages: Vec<(u32, u64)>,
    },
    /// Successor: it can serve pods now.
    Take,
    /// Predecessor: it has stopped reconciling.
    Given,
    /// Successor: it has taken over.
    Done,
}

/// Description of an agent, for the other one's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgentInfo {
    version: String,
    layout: String,
    /// As its own container numbers it.
    pid: u32,
}

impl AgentInfo {
    fn this() -> Self {
        let (version, layout) = (env!("CARGO_PKG_VERSION").to_owned(), LAYOUT.to_owned());
        Self { version, layout, pid: std::process::id() }
    }
}

impl fmt::Display for AgentInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of version {}, layout {}", self.pid, self.version, self.layout)
    }
}

/// The part of a line that every version of the protocol has.
#[derive(Deserialize)]
struct Version {
    protocol: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    protocol: u32,
    #[serde(rename = "say")]
    message: Message,
}

/// One end of a connection between two agents.
struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Beginning of a line that has not arrived completely.
    line: Vec<u8>,
}

impl Wire {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer, line: Vec::new() }
    }

    async fn send(&mut self, message: Message) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(&Line { protocol: PROTOCOL, message })?;
        line.push(b'\n');
        self.writer.write_all(&line).await.context("it has disconnected")
    }

    /// Receives the next message. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`OtherProtocol`] is the cause if the other agent has another version of the protocol.
    async fn receive(&mut self) -> anyhow::Result<Message> {
        (&mut self.reader).take(LINE_LEN_MAX).read_until(b'\n', &mut self.line).await?;
        if self.line.pop() != Some(b'\n') {
            bail!("it has disconnected");
        }
        let line = std::mem::take(&mut self.line);
        let Version { protocol } = serde_json::from_slice(&line).context("it sent an invalid message")?;
        if protocol != PROTOCOL {
            return Err(OtherProtocol { theirs: protocol }.into());
        }
        Ok(serde_json::from_slice::<Line>(&line).context("it sent an invalid message")?.message)
    }

    /// Waits until the other agent has disconnected.
    async fn ended(&mut self) {
        while self.receive().await.is_ok() {}
    }
}

/// The other agent has another version of the protocol.
#[derive(Debug, thiserror::Error)]
#[error("it has version {theirs} of the hand-over protocol, and this agent version {PROTOCOL}")]
struct OtherProtocol {
    theirs: u32,
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Removes the socket and the lock from `--run-dir`.
pub(crate) fn remove_leftovers(run_dir: &Path) -> anyhow::Result<()> {
    for path in [socket(run_dir), lock::path(run_dir)] {
        files::remove_if_present(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

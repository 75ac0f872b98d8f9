//! Two agents of one node, one after the other. The newcomer asks the owner over a unix socket in `--run-dir`:
//!
//! ```text
//! newcomer                                   owner
//!   TakeOver ─────────────────────────────▶
//!            ◀───────────────────────────── Welcome: when the interfaces appeared
//!   … its worker starts and reaches a server; pods are answered by the owner, which goes on repairing …
//!   Take     ─────────────────────────────▶
//!            ◀───────────────────────────── Given: it repairs nothing any more
//!   … claims the datapath; listeners into the slots, programs behind the links …
//!   Done     ─────────────────────────────▶ drains, then stands by
//! ```
//!
//! A line of JSON each. When the newcomer goes away before `Done`, the owner makes everything its own again. An owner
//! that does not answer is given up for dead. Who stands by keeps a connection open ([`watch`]), and follows the owner
//! when it ends. In the order of an upgrade: [`takeover_lock`], [`newcomer`], [`owner`].

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

/// Version of this language. An agent that speaks another one is refused.
const PROTOCOL: u32 = 1;
/// The owner's socket, in `--run-dir`.
const SOCKET: &str = "agent.sock";
/// How long an agent that lives may take to answer: its longest work without a pause is loading the programs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a newcomer may take from `Given` to `Done`, and how much more for each interface: of another layout it makes
/// a link for each, which waits for the kernel (20 ms seen); of the same one it changes those that are there (0.1 ms).
const TAKEOVER_TIME_MAX: Duration = Duration::from_secs(10);
const TAKEOVER_TIME_PER_INTERFACE: Duration = Duration::from_millis(50);
/// Longest line, bytes: the times of 8,192 interfaces with 40 bytes each.
const LINE_LEN_MAX: u64 = 1024 * 1024;

/// What agents say to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Of the newcomer: it wants to be the owner.
    TakeOver(AgentInfo),
    /// Of one that stands by: it wants to see the owner end.
    Watch,
    /// Of the owner: go on.
    Welcome {
        /// The owner.
        about: AgentInfo,
        /// When each interface appeared: index, milliseconds of `CLOCK_MONOTONIC`.
        #[serde(rename = "births")]
        interface_ages: Vec<(u32, u64)>,
    },
    /// Of the newcomer: it could serve pods now.
    Take,
    /// Of the owner: it repairs nothing any more.
    Given,
    /// Of the newcomer: all is in place.
    Done,
}

/// Who an agent is, for the other one's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgentInfo {
    version: String,
    layout: String,
    /// In its own container.
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

/// What every version of the language has in each line.
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

/// One end of a conversation.
struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The beginning of a line whose end has not come yet.
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
        self.writer.write_all(&line).await.context("it has gone")
    }

    /// What the other one says next. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// It has gone, talks nonsense, or speaks another version.
    async fn receive(&mut self) -> anyhow::Result<Message> {
        (&mut self.reader).take(LINE_LEN_MAX).read_until(b'\n', &mut self.line).await?;
        if self.line.pop() != Some(b'\n') {
            bail!("it has gone");
        }
        let line = std::mem::take(&mut self.line);
        let Version { protocol } = serde_json::from_slice(&line).context("it says what no agent says")?;
        if protocol != PROTOCOL {
            return Err(OtherProtocol { theirs: protocol }.into());
        }
        Ok(serde_json::from_slice::<Line>(&line).context("it says what no agent says")?.message)
    }

    /// Waits until the other one has gone.
    async fn ended(&mut self) {
        while self.receive().await.is_ok() {}
    }
}

/// The other agent speaks another version of this language.
#[derive(Debug, thiserror::Error)]
#[error("it speaks version {theirs} of the hand-over, and this one version {PROTOCOL}")]
struct OtherProtocol {
    theirs: u32,
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Removes what agents leave in `--run-dir` for each other.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn remove_leftovers(run_dir: &Path) -> anyhow::Result<()> {
    for path in [socket(run_dir), lock::path(run_dir)] {
        files::remove_if_present(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! The lock of the node: each agent that runs holds a lock on the project's folder in the bpffs, whatever its
//! `--run-dir` and its container. The kernel releases it when the process ends.

use crate::datapath::programs::pins;
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock, fstat, major, minor};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

/// Maximum of characters of a command line in messages.
const COMMAND_CHARS_MAX: usize = 120;

/// Number and interval of attempts to lock while another agent starts: ten seconds in total, many times the duration of
/// a start.
const LOCK_TRIES: usize = 200;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Presence of other agents on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherAgents {
    /// There is no other agent, and no other one can start until [`NodeLock::downgrade`].
    Absent,
    /// There is at least one.
    Present,
}

/// The lock of this process.
pub(crate) struct NodeLock {
    folder: File,
    root: PathBuf,
}

impl NodeLock {
    /// Opens the folder without locking it. Creates it, readable only by root, if it is missing.
    pub(crate) fn open(bpffs: &Path) -> anyhow::Result<Self> {
        let root = pins::root(bpffs)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("creating {}", root.display()))?;
        let folder = File::open(&root).with_context(|| format!("opening {}", root.display()))?;
        Ok(Self { folder, root })
    }

    /// Returns the locked folder; [`pins`] are below it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock of an agent. Waits while another agent starts. Also waits for the end of an agent that was killed
    /// as it started: a child process of it may hold the lock a moment longer. Returns an error if `kiam-agent cleanup`
    /// runs, or the start of the other agent takes too long.
    pub(crate) async fn lock_shared_or_exclusive(&self) -> anyhow::Result<OtherAgents> {
        for number in 0..LOCK_TRIES {
            if self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(OtherAgents::Absent);
            }
            if self.try_lock(FlockOperation::NonBlockingLockShared)? {
                return Ok(OtherAgents::Present);
            }
            if number == 0 {
                tracing::info!("{}: waiting for it to finish", self.blocked_by());
            }
            sleep(LOCK_RETRY_INTERVAL).await;
        }
        bail!("{}: try again when it is done", self.blocked_by())
    }

    fn blocked_by(&self) -> String {
        format!("another agent is just starting on this node, or `kiam-agent cleanup` runs ({})", self.holders())
    }

    /// Lets other agents start while this one runs.
    pub(crate) fn downgrade(&self) -> anyhow::Result<()> {
        flock(&self.folder, FlockOperation::LockShared).context("letting other agents start while this one runs")
    }

    /// Takes the lock for `kiam-agent cleanup`, which prevents all agents from starting. Returns an error if an agent
    /// runs.
    pub(crate) fn lock_exclusive(&self) -> anyhow::Result<()> {
        if self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
            return Ok(());
        }
        bail!("an agent runs on this node and would set everything up again ({}): stop it first", holders(&self.folder))
    }

    /// Returns a description of the processes that hold the lock.
    pub(crate) fn holders(&self) -> String {
        holders(&self.folder)
    }

    fn try_lock(&self, operation: FlockOperation) -> anyhow::Result<bool> {
        match flock(&self.folder, operation) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("locking {}", self.root.display())),
        }
    }
}

/// Returns a description of the processes that hold a lock on a file, with their command lines. A process in another
/// container has no id here.
pub(crate) fn holders(file: &File) -> String {
    let named = |pid| format!("process {pid}: {}", command_of(pid));
    let names: Vec<String> = lockers(file).unwrap_or_default().into_iter().map(named).collect();
    if names.is_empty() {
        return "a process in another container; `fuser -v` on the node names it".to_owned();
    }
    names.join(", ")
}

/// Returns the other processes that hold a lock on a file, from `/proc/locks` (proc_locks(5)), which has lines such as
/// `7: FLOCK  ADVISORY  READ 4711 00:27:5753767 0 EOF`.
fn lockers(file: &File) -> io::Result<Vec<u32>> {
    let stat = fstat(file)?;
    let place = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let own = std::process::id();
    let table = fs::read_to_string("/proc/locks")?;
    let mut pids: Vec<u32> = table.lines().filter_map(|line| locker(line, &place)).filter(|&pid| pid != own).collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn locker(line: &str, place: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields.as_slice() {
        [_, "FLOCK", _, _, pid, locked, ..] if *locked == place => pid.parse().ok(),
        _ => None,
    }
}

fn command_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    line.trim().chars().take(COMMAND_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_holder_is_found_by_device_and_inode() {
        let line = "7: FLOCK  ADVISORY  READ 4711 00:27:5753767 0 EOF";
        assert_eq!(locker(line, "00:27:5753767"), Some(4711));
        assert_eq!(locker(line, "00:27:5753768"), None);
        assert_eq!(locker("7: -> FLOCK  ADVISORY  WRITE 12 00:27:5753767 0 EOF", "00:27:5753767"), None, "it waits");
        assert_eq!(locker("8: POSIX  ADVISORY  WRITE 12 00:27:5753767 0 EOF", "00:27:5753767"), None);
    }
}

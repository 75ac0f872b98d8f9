//! Who is on this node: every agent that lives holds a lock on the project's folder in the bpffs, whatever its
//! `--run-dir` and its container. The kernel gives it back when the process ends.

use crate::datapath::programs::pins;
use anyhow::{Context as _, bail};
use nix::sys::stat::{fstat, major, minor};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

/// How much of a command line is shown, characters.
const COMMAND_CHARS_MAX: usize = 120;

/// How often the lock is tried while another agent starts, and how long after one another: ten seconds, many times what a
/// start takes.
const LOCK_TRIES: usize = 200;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Whether other agents live on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherAgents {
    /// None, and none can start until [`NodeLock::downgrade`].
    Absent,
    /// At least one.
    Present,
}

/// The lock of this process.
pub(crate) struct NodeLock {
    folder: File,
    root: PathBuf,
}

impl NodeLock {
    /// Nothing is locked yet. The folder is made when it isn't there, for root alone.
    pub(crate) fn open(bpffs: &Path) -> anyhow::Result<Self> {
        let root = pins::root(bpffs)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("making {}", root.display()))?;
        let folder = File::open(&root).with_context(|| format!("opening {}", root.display()))?;
        Ok(Self { folder, root })
    }

    /// The locked folder: [`pins`] are below it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes an agent's lock. Another agent's start is waited for, and so is the end of one that was killed as it began:
    /// the process that it was just making of itself may hold the lock for a moment longer.
    pub(crate) async fn lock_shared_or_exclusive(&self) -> anyhow::Result<OtherAgents> {
        for number in 0..LOCK_TRIES {
            if self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(OtherAgents::Absent);
            }
            if self.try_lock(FlockOperation::NonBlockingLockShared)? {
                return Ok(OtherAgents::Present);
            }
            if number == 0 {
                tracing::info!("{}: waiting for it", self.blocked_by());
            }
            sleep(LOCK_RETRY_INTERVAL).await;
        }
        bail!("{}: try again when it is done", self.blocked_by())
    }

    fn blocked_by(&self) -> String {
        format!("another agent is just starting on this node, or `kiam-agent cleanup` runs ({})", self.holders())
    }

    /// Lets other agents start beside this one.
    pub(crate) fn downgrade(&self) -> anyhow::Result<()> {
        flock(&self.folder, FlockOperation::LockShared).context("letting other agents start beside this one")
    }

    /// Takes the lock for `cleanup`: for as long as it is held, no agent starts.
    pub(crate) fn lock_exclusive(&self) -> anyhow::Result<()> {
        if self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
            return Ok(());
        }
        bail!("an agent runs on this node and would set everything up again ({}): stop it first", holders(&self.folder))
    }

    /// Who holds the lock, for people.
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

/// The processes that hold a lock on a file, with their command lines, for people. A process in another container has
/// no number here.
pub(crate) fn holders(file: &File) -> String {
    let named = |pid| format!("process {pid}: {}", command_of(pid));
    let names: Vec<String> = lockers(file).unwrap_or_default().into_iter().map(named).collect();
    if names.is_empty() {
        return "a process of another container: `fuser -v` on the node names it".to_owned();
    }
    names.join(", ")
}

/// From `/proc/locks` (proc_locks(5)): `7: FLOCK  ADVISORY  READ 4711 00:27:5753767 0 EOF`.
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

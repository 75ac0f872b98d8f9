//! One at a time: an agent that wants to become the owner holds a lock in `--run-dir` from its question until it is.

use crate::datapath::ownership::node_lock;
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
};
use tokio::{sync::oneshot, time::timeout};

const FILE: &str = "upgrade.lock";

/// The right to become the owner; given back when dropped.
pub(in crate::parent) struct TakeoverLock {
    _lock: File,
}

impl TakeoverLock {
    /// Of a newcomer, which has no reason to wait for long.
    ///
    /// # Errors
    /// Another one is becoming the owner; which one, and what to do.
    pub(in crate::parent) async fn acquire(run_dir: &Path) -> anyhow::Result<Self> {
        if let Ok(takeover_lock) = timeout(super::ANSWER_TIMEOUT, Self::wait(run_dir)).await {
            return takeover_lock;
        }
        let path = path(run_dir);
        let holders = node_lock::holders(&open(&path)?);
        bail!(
            "another agent waits to take over this node's datapath ({holders}): end it, or let it; it holds {}",
            path.display()
        )
    }

    /// Of one that stands by: when it is its turn.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub(in crate::parent) async fn wait(run_dir: &Path) -> anyhow::Result<Self> {
        let path = path(run_dir);
        let file = open(&path)?;
        let (sender, receiver) = oneshot::channel();
        // flock(2) has no time limit: a thread waits. What it gets when nobody waits any more, it gives back.
        thread::Builder::new().name("takeover-lock".to_owned()).spawn(move || {
            let locked = flock(&file, FlockOperation::LockExclusive).map(|()| file);
            drop(sender.send(locked));
        })?;
        let file = receiver.await.context("the thread that waits has ended")?;
        Ok(Self { _lock: file.with_context(|| format!("locking {}", path.display()))? })
    }
}

pub(super) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

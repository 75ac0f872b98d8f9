//! The takeover lock, a file in `--run-dir`: an agent holds it from its request to take over until it has taken over,
//! so that only one at a time does.

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

/// The right to take over; released when dropped.
pub(in crate::parent) struct TakeoverLock {
    _lock: File,
}

impl TakeoverLock {
    /// Acquires the lock for an agent that starts, and fails if another agent holds it for too long.
    pub(in crate::parent) async fn acquire(run_dir: &Path) -> anyhow::Result<Self> {
        if let Ok(takeover_lock) = timeout(super::ANSWER_TIMEOUT, Self::wait(run_dir)).await {
            return takeover_lock;
        }
        let path = path(run_dir);
        let holders = node_lock::holders(&open(&path)?);
        bail!(
            "another agent is taking over this node's datapath ({holders}): wait for it, or end it; it holds {}",
            path.display()
        )
    }

    /// Waits for the lock, for a standby agent.
    pub(in crate::parent) async fn wait(run_dir: &Path) -> anyhow::Result<Self> {
        let path = path(run_dir);
        let file = open(&path)?;
        let (sender, receiver) = oneshot::channel();
        // flock(2) has no timeout, so a thread waits. If the caller has given up meanwhile, the lock is released at
        // once.
        thread::Builder::new().name("takeover-lock".to_owned()).spawn(move || {
            let locked = flock(&file, FlockOperation::LockExclusive).map(|()| file);
            drop(sender.send(locked));
        })?;
        let file = receiver.await.context("the thread that waits for the lock has ended")?;
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

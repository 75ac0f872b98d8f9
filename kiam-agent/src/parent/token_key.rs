//! The key that seals session tokens, in a file that only root can read, so that the agents of an upgrade and a
//! restarted agent can open each other's tokens. The folder is on tmpfs, so a reboot creates a new key.

use crate::{files, worker_protocol::TOKEN_KEY_LEN};
use anyhow::{Context as _, bail};
use kiam_common::secret::Secret;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

const FILE: &str = "token.key";

/// Returns the key of this node, and creates it if it is missing. Refuses a file that has another length or that other
/// users can read.
pub(super) fn open(run_dir: &Path) -> anyhow::Result<Secret<[u8; TOKEN_KEY_LEN]>> {
    let path = run_dir.join(FILE);
    if !path.exists() {
        make(run_dir, &path).with_context(|| format!("creating the session token key {}", path.display()))?;
    }
    let metadata = fs::metadata(&path).with_context(|| format!("reading the mode of {}", path.display()))?;
    if metadata.mode() & 0o077 != 0 {
        bail!("{} can be read by others than its owner: remove it, and the agent creates a new one", path.display());
    }
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    match <[u8; TOKEN_KEY_LEN]>::try_from(bytes) {
        Ok(key) => Ok(Secret::new(key)),
        Err(bytes) => bail!(
            "{} has {} bytes instead of {TOKEN_KEY_LEN}: remove it, and the agent creates a new one",
            path.display(),
            bytes.len()
        ),
    }
}

/// Removes the key of this node, which makes all tokens sealed with it invalid.
pub(crate) fn remove(run_dir: &Path) -> anyhow::Result<()> {
    files::remove_if_present(&run_dir.join(FILE))
}

/// Creates the key under another name and links it into place: of two agents that start at the same time, one creates
/// the key, and neither reads half of it.
fn make(run_dir: &Path, path: &Path) -> anyhow::Result<()> {
    let mut key = [0; TOKEN_KEY_LEN];
    SystemRandom::new().fill(&mut key).ok().context("the kernel returns no random bytes")?;
    let draft = run_dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&key)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

//! The key that seals session tokens: in a file that only root can read, so that the old and the new agent of an
//! upgrade, and a restarted one, open each other's tokens. The folder is on tmpfs: a reboot makes a new one.

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

/// The key of this node, made when there is none.
///
/// # Errors
/// The file cannot be read or made, has another length, or could be read by others than root.
pub(super) fn open(run_dir: &Path) -> anyhow::Result<Secret<[u8; TOKEN_KEY_LEN]>> {
    let path = run_dir.join(FILE);
    if !path.exists() {
        make(run_dir, &path).with_context(|| format!("making the key of session tokens, {}", path.display()))?;
    }
    let metadata = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
    if metadata.mode() & 0o077 != 0 {
        bail!("{} can be read by others than its owner: remove it, a new one will be made", path.display());
    }
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    match <[u8; TOKEN_KEY_LEN]>::try_from(bytes) {
        Ok(key) => Ok(Secret::new(key)),
        Err(bytes) => bail!(
            "{} holds {} bytes instead of {TOKEN_KEY_LEN}: remove it, a new one will be made",
            path.display(),
            bytes.len()
        ),
    }
}

/// Removes the key of this node: tokens that were sealed with it are worth nothing any more. That there is none is fine.
///
/// # Errors
/// The file cannot be removed.
pub(crate) fn remove(run_dir: &Path) -> anyhow::Result<()> {
    files::remove_if_present(&run_dir.join(FILE))
}

/// Written beside and linked into place: of two agents that start at once, one makes the key and both read it whole.
fn make(run_dir: &Path, path: &Path) -> anyhow::Result<()> {
    let mut key = [0; TOKEN_KEY_LEN];
    SystemRandom::new().fill(&mut key).ok().context("the kernel gives no random bytes")?;
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

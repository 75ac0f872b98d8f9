//! Operations on files that the standard library does not have.

use anyhow::Context as _;
use std::{fs, io::ErrorKind, path::Path};

/// Removes a file. A missing file is no error.
pub(crate) fn remove_if_present(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

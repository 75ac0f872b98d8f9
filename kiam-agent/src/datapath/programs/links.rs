//! Links that are pinned: the kernel runs a program for as long as the pin of its link exists, without any process.

use crate::{files, sys};
use anyhow::Context as _;
use aya::programs::links::FdLink;
use std::{io::ErrorKind, os::fd::BorrowedFd, path::Path};

/// Puts `program` behind the link that is pinned at `pin`, without a moment in which neither program runs. Returns
/// `false` if there is no such link. Removes the pin of a link that is no longer attached.
pub(super) fn replace_program(pin: &Path, program: BorrowedFd<'_>) -> anyhow::Result<bool> {
    match sys::update_pinned_link(pin, program) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // Another process detached it, or its interface is gone, and the index was assigned to another one.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            files::remove_if_present(pin)?;
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("updating the link {}", pin.display())),
    }
}

/// Pins a new link.
pub(super) fn pin(link: FdLink, pin: &Path) -> anyhow::Result<()> {
    link.pin(pin).with_context(|| format!("pinning {}", pin.display()))?;
    Ok(())
}

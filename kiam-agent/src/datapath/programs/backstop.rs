//! Attaching the backstop (`kiam_sk_lookup`) to the node's network namespace.

use super::{object::Object, pins::Pins};
use crate::sys;
use anyhow::Context as _;
use aya::programs::links::FdLink;
use std::{fs::File, io::ErrorKind, os::fd::AsFd as _};

/// Puts the program behind the pinned link, or makes and pins one.
///
/// # Errors
/// The kernel's.
pub(crate) fn attach(object: &mut Object, pins: &Pins) -> anyhow::Result<()> {
    let pin = pins.backstop();
    let program = object.sk_lookup()?;
    match sys::update_pinned_link(&pin, program.fd()?.as_fd()) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Somebody has detached it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Pins::remove(&pin)?,
        Err(error) => return Err(error).with_context(|| format!("updating the link {}", pin.display())),
    }
    let namespace = File::open("/proc/self/ns/net").context("opening the network namespace")?;
    let id = program.attach(&namespace).context("attaching it to the network namespace")?;
    let link: FdLink = program.take_link(id)?.into();
    link.pin(&pin).with_context(|| format!("pinning {}", pin.display()))?;
    Ok(())
}

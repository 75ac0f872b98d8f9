//! Attachment of the backstop (`kiam_sk_lookup`) to the node's network namespace.

use super::{links, object::Object, pins::Pins};
use crate::sys::query::{self, QueryHook};
use anyhow::Context as _;
use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Puts the program behind the pinned link, or creates and pins a link.
pub(crate) fn attach(object: &mut Object, pins: &Pins) -> anyhow::Result<()> {
    let pin = pins.backstop();
    let program = object.sk_lookup()?;
    if links::replace_program(&pin, program.fd()?.as_fd())? {
        return Ok(());
    }
    let id = program.attach(network_namespace()?).context("attaching it to the network namespace")?;
    links::pin(program.take_link(id)?.into(), &pin)
}

/// Returns whether this program is attached to the network namespace, by a link that is pinned.
pub(crate) fn is_attached(object: &mut Object, pins: &Pins) -> anyhow::Result<bool> {
    let program = object.sk_lookup()?.info()?.id();
    let namespace = network_namespace()?;
    let target = u32::try_from(namespace.as_raw_fd())?;
    let programs = query::programs(QueryHook::SkLookup(target)).context("listing the sk_lookup programs")?;
    Ok(pins.has_backstop() && programs.contains(&program))
}

fn network_namespace() -> anyhow::Result<File> {
    File::open("/proc/self/ns/net").context("opening the network namespace")
}

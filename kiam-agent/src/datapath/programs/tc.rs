//! Attachment of a TC program to an interface: by a pinned TCX link if the kernel has them (since 6.6), else by a
//! clsact filter, which the kernel keeps without a pin.

use super::{
    links,
    pins::{LinkOf, Pins},
};
use crate::{config::TcAttach, files};
use anyhow::Context as _;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
use futures::TryStreamExt as _;
use netlink_packet_route::tc::{TcHandle as NetlinkTcHandle, TcMessage};
use rtnetlink::Handle;
use std::{io, os::fd::AsFd as _, path::PathBuf};

/// Priority of our filters: before those of the CNI.
const FILTER_PRIORITY: u16 = 1;
const REDIRECT_HANDLE: TcHandle = TcHandle::new(0, 0x1d5);
const GUARD_HANDLE: TcHandle = TcHandle::new(0, 0x1d6);
const GUARD_IN_HANDLE: TcHandle = TcHandle::new(0, 0x1d7);
const PROBE_HANDLE: TcHandle = TcHandle::new(0, 0x1d8);

/// Kind of attachment on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Not tried yet.
    Unknown,
    /// `BPF_LINK_CREATE` with `BPF_TCX_INGRESS`.
    Tcx,
    /// A filter on the clsact qdisc.
    Clsact,
}

impl Hook {
    /// Returns the hook that the operator chose, or `Unknown` until the first attachment finds it.
    pub(crate) const fn new(mode: TcAttach) -> Self {
        match mode {
            TcAttach::Auto => Self::Unknown,
            TcAttach::Tcx => Self::Tcx,
            TcAttach::Clsact => Self::Clsact,
        }
    }
}

/// Place of a program on an interface.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Direction: ingress or egress.
    pub(crate) direction: TcAttachType,
    /// Handle of the clsact filter. It distinguishes our filters, and others of the same priority; the number is
    /// arbitrary.
    pub(crate) handle: TcHandle,
    /// Path of the pinned TCX link.
    pub(crate) pin: PathBuf,
}

/// Directions and handles of our clsact filters.
pub(crate) const FILTERS: [(TcAttachType, TcHandle); 3] = [
    (TcAttachType::Ingress, REDIRECT_HANDLE),
    (TcAttachType::Egress, GUARD_HANDLE),
    (TcAttachType::Ingress, GUARD_IN_HANDLE),
];

impl Place {
    /// Returns the place of `kiam_tc_ingress`.
    pub(crate) fn redirect(pins: &Pins, interface: u32) -> Self {
        Self { direction: TcAttachType::Ingress, handle: REDIRECT_HANDLE, pin: pins.link(LinkOf::Redirect, interface) }
    }

    /// Returns the place of `kiam_guard`.
    pub(crate) fn guard(pins: &Pins, interface: u32) -> Self {
        Self { direction: TcAttachType::Egress, handle: GUARD_HANDLE, pin: pins.link(LinkOf::Guard, interface) }
    }

    /// Returns the place of `kiam_probe_out`.
    pub(crate) fn probe(pins: &Pins, interface: u32) -> Self {
        Self { direction: TcAttachType::Egress, handle: PROBE_HANDLE, pin: pins.link(LinkOf::Probe, interface) }
    }

    /// Returns the place of `kiam_guard_in`.
    pub(crate) fn guard_in(pins: &Pins, interface: u32) -> Self {
        Self { direction: TcAttachType::Ingress, handle: GUARD_IN_HANDLE, pin: pins.link(LinkOf::GuardIn, interface) }
    }
}

/// Attaches a program to an interface, or replaces the program of an earlier agent. Returns the hook in use.
pub(crate) fn attach(program: &mut SchedClassifier, place: &Place, hook: Hook, name: &str) -> anyhow::Result<Hook> {
    match hook {
        Hook::Tcx => tcx(program, place, name).map(|()| Hook::Tcx),
        Hook::Clsact => clsact(program, place, name).map(|()| Hook::Clsact),
        Hook::Unknown => match tcx(program, place, name) {
            Ok(()) => Ok(Hook::Tcx),
            Err(error) if is_unsupported(&error) => {
                tracing::info!("this kernel has no TCX links: using clsact filters");
                clsact(program, place, name).map(|()| Hook::Clsact)
            }
            Err(error) => Err(error),
        },
    }
}

fn tcx(program: &mut SchedClassifier, place: &Place, name: &str) -> anyhow::Result<()> {
    let pin = &place.pin;
    if links::replace_program(pin, program.fd()?.as_fd())? {
        return Ok(());
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, place.direction, options)?;
    links::pin(program.take_link(id)?.try_into()?, pin)
}

fn clsact(program: &mut SchedClassifier, place: &Place, name: &str) -> anyhow::Result<()> {
    match tc::qdisc_add_clsact(name) {
        // It exists already, from another program or an earlier agent.
        Err(error) if has_errno(&error, libc::EEXIST) => {}
        other => other.context("adding the clsact qdisc")?,
    }
    let Place { direction, handle, pin: _ } = *place;
    // Replaces the filter of an earlier agent without a moment in which no filter runs.
    let present = SchedClassifierLink::attached(name, direction, FILTER_PRIORITY, handle, None)?;
    let id = match program.attach_to_link(present) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions { priority: FILTER_PRIORITY, handle, classid: None };
            program.attach_with_options(name, direction, TcAttachOptions::Netlink(options))?
        }
    };
    // Dropping it would detach the filter, which must outlive this process.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Detaches a program from an interface that no longer needs it, or removes the pin of an interface that is gone.
pub(crate) fn detach(place: &Place, hook: Hook, name: Option<&str>) -> anyhow::Result<()> {
    files::remove_if_present(&place.pin)?;
    match name {
        Some(name) if hook != Hook::Tcx => remove_filter(name, place.direction, place.handle).map(drop),
        _ => Ok(()),
    }
}

/// Removes one of our clsact filters from an interface, and returns whether there was one. The qdisc stays: others may
/// use it.
pub(crate) fn remove_filter(name: &str, direction: TcAttachType, handle: TcHandle) -> anyhow::Result<bool> {
    let Ok(link) = SchedClassifierLink::attached(name, direction, FILTER_PRIORITY, handle, None) else {
        // The interface has gone, and its filter with it.
        return Ok(false);
    };
    match aya::programs::Link::detach(link) {
        Ok(()) => Ok(true),
        Err(error) if has_errno(&error, libc::ENOENT) || has_errno(&error, libc::EINVAL) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing the filter of {name}")),
    }
}

/// Removes the clsact qdisc of our filter, unless it has a filter of another program, too.
pub(crate) async fn remove_idle_qdisc(netlink: &Handle, index: u32) -> anyhow::Result<()> {
    let index = i32::try_from(index).context("the interface index is out of range")?;
    let ingress: Vec<TcMessage> = netlink.traffic_filter(index).get().ingress().execute().try_collect().await?;
    let egress: Vec<TcMessage> = netlink.traffic_filter(index).get().egress().execute().try_collect().await?;
    if !ingress.is_empty() || !egress.is_empty() {
        return Ok(());
    }
    let mut request = netlink.qdisc().del(index);
    let header = &mut request.message_mut().header;
    header.parent = NetlinkTcHandle::CLSACT;
    header.handle = NetlinkTcHandle { major: 0xffff, minor: 0 };
    request.execute().await.with_context(|| format!("removing the clsact qdisc of interface {index}"))
}

/// Returns whether the kernel has no `BPF_TCX_INGRESS`: it returns `EINVAL` then.
fn is_unsupported(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ProgramError>().is_some_and(|error| has_errno(error, libc::EINVAL))
}

fn has_errno(error: &(dyn std::error::Error + 'static), errno: i32) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(errno)) {
            return true;
        }
        cause = error.source();
    }
    false
}

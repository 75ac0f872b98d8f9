//! Verification that our programs are still attached to their interfaces, and the programs of others that run first.

use super::tc::{Hook, Place};
use crate::sys::query::{self, QueryHook};
use anyhow::Context as _;
use aya::programs::TcAttachType;
use futures::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;
use std::collections::BTreeMap;

/// State of a program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttachState {
    /// It is attached, and these programs of others run before it.
    After(Vec<String>),
    /// It is not attached, or the pin that keeps it attached is gone.
    Gone,
}

/// Result of a check of several interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Interfaces that have lost the program: name by index.
    pub(crate) lost: BTreeMap<u32, String>,
    /// Interfaces where programs of others run first: name, and the programs.
    pub(crate) behind: Vec<(String, Vec<String>)>,
}

impl Findings {
    /// Checks one interface. An interface that has just disappeared is not a finding.
    pub(crate) async fn check(
        &mut self,
        netlink: &Handle,
        hook: Hook,
        place: &Place,
        index: u32,
        name: &str,
        program: u32,
    ) -> anyhow::Result<()> {
        match on_interface(netlink, hook, place, index, program).await {
            Ok(AttachState::Gone) => drop(self.lost.insert(index, name.to_owned())),
            Ok(AttachState::After(programs)) if programs.is_empty() => {}
            Ok(AttachState::After(programs)) => self.behind.push((name.to_owned(), programs)),
            Err(_) if if_nametoindex(name) != Ok(index) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds the findings of another check.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.behind.extend(other.behind);
    }
}

/// Returns the state of the program with this id.
pub(crate) async fn on_interface(
    netlink: &Handle,
    hook: Hook,
    place: &Place,
    index: u32,
    program: u32,
) -> anyhow::Result<AttachState> {
    let order = match hook {
        Hook::Tcx if !place.pin.exists() => return Ok(AttachState::Gone),
        Hook::Tcx => tcx(place.direction, index)?,
        Hook::Clsact | Hook::Unknown => clsact(netlink, place.direction, index).await?,
    };
    let ours = order.iter().position(|(id, _)| *id == Some(program));
    Ok(ours
        .map_or(AttachState::Gone, |at| AttachState::After(order.into_iter().take(at).map(|(_, name)| name).collect())))
}

/// A filter of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Id of the program behind it, if it has one.
    pub(crate) program: Option<u32>,
    /// Name, if it was created with one.
    pub(crate) name: Option<String>,
    /// Kind: `bpf`, `flower`, …
    pub(crate) kind: String,
    /// Preference.
    pub(crate) preference: u32,
    /// Handle.
    pub(crate) handle: u32,
}

/// Ids and descriptions of the programs, in the order in which they run.
type Order = Vec<(Option<u32>, String)>;

fn tcx(direction: TcAttachType, index: u32) -> anyhow::Result<Order> {
    let hook = match direction {
        TcAttachType::Egress => QueryHook::TcxEgress(index),
        _ => QueryHook::TcxIngress(index),
    };
    let ids = query::programs(hook).with_context(|| format!("listing the programs of interface {index}"))?;
    Ok(ids.into_iter().map(|id| (Some(id), format!("program {id} (bpftool prog show id {id})"))).collect())
}

async fn clsact(netlink: &Handle, direction: TcAttachType, index: u32) -> anyhow::Result<Order> {
    let describe = |Filter { name, kind, preference, .. }: &Filter| {
        let what = name.as_ref().map_or_else(|| kind.clone(), |name| format!("{kind} {name}"));
        format!("the {what} filter at pref {preference}")
    };
    let filters = filters(netlink, direction, index).await?;
    Ok(filters.iter().map(|filter| (filter.program, describe(filter))).collect())
}

/// Returns the filters of an interface in the order in which the kernel runs them.
pub(crate) async fn filters(netlink: &Handle, direction: TcAttachType, index: u32) -> anyhow::Result<Vec<Filter>> {
    let interface = i32::try_from(index).context("the interface index is out of range")?;
    let mut filters = netlink.traffic_filter(interface).get();
    filters = match direction {
        TcAttachType::Egress => filters.egress(),
        _ => filters.ingress(),
    };
    let messages: Vec<TcMessage> =
        filters.execute().try_collect().await.with_context(|| format!("listing the filters of interface {index}"))?;
    // The first message of each kind and priority describes the group, and has no handle.
    Ok(messages.iter().filter(|message| u32::from(message.header.handle) != 0).map(filter).collect())
}

fn filter(message: &TcMessage) -> Filter {
    let (mut program, mut name, mut kind) = (None, None, "");
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(found) => kind = found,
            TcAttribute::Options(options) => options.iter().for_each(|option| match option {
                TcOption::Bpf(TcFilterBpfOption::ProgId(found)) => program = Some(*found),
                TcOption::Bpf(TcFilterBpfOption::ProgName(found)) => name = Some(found.clone()),
                _ => {}
            }),
            _ => {}
        }
    }
    let preference = message.header.info >> 16;
    Filter { program, name, kind: kind.to_owned(), preference, handle: message.header.handle.into() }
}

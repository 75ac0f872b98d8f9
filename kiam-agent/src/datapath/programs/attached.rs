//! Whether a program of ours still is where it was put, and whose programs come before it.

use super::tc::{Hook, Place};
use crate::sys::query::{self, QueryHook};
use anyhow::Context as _;
use aya::programs::TcAttachType;
use futures::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;
use std::collections::BTreeMap;

/// How a program stands on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttachState {
    /// It is there; before it run these, of others.
    After(Vec<String>),
    /// It is not there, or what keeps it there is not.
    Gone,
}

/// What a look at all interfaces of a kind has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Those that the program is not on any more: name by index.
    pub(crate) lost: BTreeMap<u32, String>,
    /// Those where others' programs run first: name, and the programs.
    pub(crate) behind: Vec<(String, Vec<String>)>,
}

impl Findings {
    /// Looks at one interface; one that has gone meanwhile is nothing to tell.
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

    /// Takes in what another look has found.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.behind.extend(other.behind);
    }
}

/// How the program with this id stands at its place.
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
    /// Of the program behind it, if it has one.
    pub(crate) program: Option<u32>,
    /// The name that its maker gave it.
    pub(crate) name: Option<String>,
    /// What it is: `bpf`, `flower`, …
    pub(crate) kind: String,
    /// Its preference.
    pub(crate) preference: u32,
    /// Its handle.
    pub(crate) handle: u32,
}

/// The programs' ids, and what to call them.
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
    let call = |Filter { name, kind, preference, .. }: &Filter| {
        let what = name.as_ref().map_or_else(|| kind.clone(), |name| format!("{kind} {name}"));
        format!("the {what} filter of pref {preference}")
    };
    let filters = filters(netlink, direction, index).await?;
    Ok(filters.iter().map(|filter| (filter.program, call(filter))).collect())
}

/// The filters of an interface; the kernel lists them in the order that it runs them in.
pub(crate) async fn filters(netlink: &Handle, direction: TcAttachType, index: u32) -> anyhow::Result<Vec<Filter>> {
    let interface = i32::try_from(index).context("an interface's index beyond its range")?;
    let mut filters = netlink.traffic_filter(interface).get();
    filters = match direction {
        TcAttachType::Egress => filters.egress(),
        _ => filters.ingress(),
    };
    let messages: Vec<TcMessage> =
        filters.execute().try_collect().await.with_context(|| format!("listing the filters of interface {index}"))?;
    // The first message of each kind and priority is about the group, and has no handle.
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

//! Which interfaces pods are behind, and the TC program on each of them, as they come and go.

use super::{births::Births, object::Object, pattern::InterfaceMatch, pins::Pins, tc};
use crate::handoff::Interface;
use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use kiam_common::abi::{Counters, MAX_INTERFACES};
use netlink_packet_route::link::{InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};

/// A network device of this node that the pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    /// Why the program is not attached to it, although it matches.
    unfit: Option<&'static str>,
}

/// What is attached.
#[derive(Debug)]
struct Attached {
    name: String,
    born_ms: Option<u64>,
}

/// The interfaces that the program is attached to.
pub(crate) struct Attachments {
    pattern: InterfaceMatch,
    hook: tc::Hook,
    attached: BTreeMap<u32, Attached>,
    /// Matched, but unfit, and said so.
    unfit: BTreeSet<u32>,
    births: Births,
}

impl Attachments {
    /// Nothing is attached yet.
    pub(crate) const fn new(pattern: InterfaceMatch, hook: tc::Hook, births: Births) -> Self {
        Self { pattern, hook, attached: BTreeMap::new(), unfit: BTreeSet::new(), births }
    }

    /// The name of an attached interface.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.attached.get(&index).map(|attached| attached.name.as_str())
    }

    /// Attaches to what has come, clears up behind what has gone. `announce` gets the whole list before the program
    /// runs on a new interface, and after one is gone.
    ///
    /// # Errors
    /// The interfaces that could not be attached to, with the kernel's reason. The others are.
    pub(crate) async fn sync(
        &mut self,
        object: &mut Object,
        pins: &Pins,
        netlink: &Handle,
        announce: impl Fn(Vec<Interface>),
    ) -> anyhow::Result<()> {
        let links = self.matched(netlink).await.context("listing the interfaces")?;
        self.tell_unfit(&links);
        self.clear_gone(&links, object, pins)?;
        let fit: Vec<(u32, String)> = links
            .iter()
            .filter(|(_, link)| link.unfit.is_none())
            .map(|(&index, link)| (index, link.name.clone()))
            .collect();
        let fresh: Vec<u32> =
            fit.iter().map(|&(index, _)| index).filter(|index| !self.attached.contains_key(index)).collect();
        for (index, name) in fit {
            // A renamed interface keeps its index and its age.
            self.attached.insert(index, Attached { name, born_ms: self.births.of(index) });
        }
        announce(self.list());
        self.attach(&fresh, object, pins)
    }

    fn attach(&mut self, fresh: &[u32], object: &mut Object, pins: &Pins) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        for &index in fresh {
            let Some(name) = self.name(index).map(str::to_owned) else { continue };
            match attach_one(object, pins, self.hook, index, &name) {
                Ok(hook) => {
                    self.hook = hook;
                    tracing::info!(interface = name, index, ?hook, "attached");
                }
                Err(error) => {
                    // Tried again at the next look, if the interface is still there then.
                    self.attached.remove(&index);
                    forget(object, index)?;
                    problems.push(format!("{name}: {error:#}"));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { bail!("cannot attach to {}", problems.join("; ")) }
    }

    /// Once an interface; what pods behind it send to M is dropped by the fence and the backstop.
    fn tell_unfit(&mut self, links: &BTreeMap<u32, Link>) {
        self.unfit.retain(|index| links.contains_key(index));
        for (&index, Link { name, unfit }) in links {
            if let Some(why) = unfit
                && self.unfit.insert(index)
            {
                tracing::warn!(interface = name, index, "matched by --host-interface but not served: {why}");
            }
        }
    }

    /// What was attached by us, or pinned by an earlier agent, and is not matched any more.
    fn clear_gone(&mut self, links: &BTreeMap<u32, Link>, object: &mut Object, pins: &Pins) -> anyhow::Result<()> {
        let fit = |index: &u32| links.get(index).is_some_and(|link| link.unfit.is_none());
        let mut gone: Vec<u32> = pins.tc_interfaces().context("listing the pinned links")?;
        gone.extend(self.attached.keys());
        gone.extend(object.interfaces()?.keys().filter_map(Result::ok));
        gone.retain(|index| !fit(index));
        gone.sort_unstable();
        gone.dedup();
        for index in gone {
            let name = links.get(&index).map(|link| link.name.as_str());
            tc::detach(pins, self.hook, index, name)?;
            forget(object, index)?;
            if let Some(attached) = self.attached.remove(&index) {
                tracing::info!(interface = attached.name, index, "gone");
            }
        }
        Ok(())
    }

    fn list(&self) -> Vec<Interface> {
        self.attached
            .iter()
            .map(|(&index, attached)| Interface { index, name: attached.name.clone(), born_ms: attached.born_ms })
            .collect()
    }

    async fn matched(&self, netlink: &Handle) -> anyhow::Result<BTreeMap<u32, Link>> {
        let mut messages = netlink.link().get().execute();
        let mut links = BTreeMap::new();
        while let Some(message) = messages.try_next().await? {
            let Some(name) = name_of(&message) else { continue };
            if self.pattern.matches(name) {
                let link = Link { name: name.to_owned(), unfit: unfit(&message) };
                links.insert(message.header.index, link);
            }
        }
        Ok(links)
    }
}

/// From now on the backstop drops what comes by this interface.
fn forget(object: &mut Object, index: u32) -> anyhow::Result<()> {
    let mut map = object.interfaces_mut()?;
    if map.get(&index, 0).is_ok() {
        map.remove(&index).with_context(|| format!("forgetting interface {index}"))?;
    }
    Ok(())
}

/// All interfaces of this node: index and name.
///
/// # Errors
/// The kernel's.
pub(crate) async fn all(netlink: &Handle) -> anyhow::Result<Vec<(u32, String)>> {
    let messages: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
    let named = messages.iter().filter_map(|message| Some((message.header.index, name_of(message)?.to_owned())));
    Ok(named.collect())
}

fn attach_one(object: &mut Object, pins: &Pins, hook: tc::Hook, index: u32, name: &str) -> anyhow::Result<tc::Hook> {
    let mut map = object.interfaces_mut()?;
    // Before the program runs: it drops what comes from an interface that is not in the map.
    if map.get(&index, 0).is_err() {
        let zero = aya::maps::PerCpuValues::try_from(vec![
            Counters::default();
            aya::util::nr_cpus().map_err(|(_, error)| error)?
        ])?;
        map.insert(index, zero, 0).with_context(|| format!("the map of interfaces is full ({MAX_INTERFACES})"))?;
    }
    tc::attach(object, pins, hook, index, name)
}

fn name_of(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn unfit(message: &LinkMessage) -> Option<&'static str> {
    if message.header.link_layer_type != LinkLayerType::Ether {
        return Some("it has no Ethernet header");
    }
    let bridge_port = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Bridge)))
        }
        _ => false,
    });
    // The bridge drops the socket that a packet carries on its way up.
    bridge_port.then_some("it is a port of a bridge: match the bridge instead")
}

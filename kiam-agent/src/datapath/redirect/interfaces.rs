//! The TC program on each interface that pods are behind, as they come and go.

use super::connection_records::ConnectionRecords;
use crate::{
    datapath::{
        node::{
            devices::Kind,
            interface_ages::InterfaceAges,
            roles::{PROBE, PodSide, Roles},
        },
        programs::{
            attached::Findings,
            object::Object,
            pins::{LinkOf, Pins},
            tc::{self, Place},
        },
    },
    report::{Interface, InterfaceKind},
};
use anyhow::{Context as _, bail};
use aya::maps::PerCpuValues;
use kiam_common::abi::{Counters, MAX_INTERFACES};
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};

/// The interfaces that the program is attached to.
pub(crate) struct Attachments {
    hook: tc::Hook,
    attached: BTreeMap<u32, PodSide>,
    /// Matched, but unfit, and said so.
    unfit: BTreeSet<u32>,
    interface_ages: InterfaceAges,
    records: ConnectionRecords,
}

impl Attachments {
    /// Nothing is attached yet.
    pub(crate) const fn new(hook: tc::Hook, interface_ages: InterfaceAges, records: ConnectionRecords) -> Self {
        Self { hook, attached: BTreeMap::new(), unfit: BTreeSet::new(), interface_ages, records }
    }

    /// How programs are attached on this node.
    pub(crate) const fn hook(&self) -> tc::Hook {
        self.hook
    }

    /// Whether the program is on an interface.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.attached.contains_key(&index)
    }

    /// Whether an interface is the self-check's own, which no pod is behind.
    pub(crate) fn is_probe(&self, index: u32) -> bool {
        self.attached.get(&index).is_some_and(PodSide::is_probe)
    }

    /// The name of an attached interface.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.attached.get(&index).map(|attached| attached.name.as_str())
    }

    /// Attaches to what has come, clears up behind what has gone. `announce` gets the whole list before the program
    /// runs on a new interface, and after one is gone.
    pub(crate) fn sync(
        &mut self,
        object: &mut Object,
        pins: &Pins,
        roles: &Roles,
        announce: impl Fn(Vec<Interface>),
    ) -> anyhow::Result<()> {
        self.log_unfit(roles);
        self.clear_gone(roles, object, pins)?;
        let fresh: Vec<u32> =
            roles.pod_sides.keys().filter(|index| !self.attached.contains_key(index)).copied().collect();
        for (&index, side) in &roles.pod_sides {
            set_port(object, index, side)?;
            // A renamed interface keeps its index and its age.
            self.attached.insert(index, side.clone());
        }
        announce(self.expected(roles));
        self.attach(&fresh, object, pins)
    }

    /// Looks whether the program still is on each interface, and forgets those that it is not on: the next
    /// [`Self::sync`] attaches it again.
    pub(crate) async fn verify(&mut self, netlink: &Handle, pins: &Pins, program: u32) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        for (&index, side) in &self.attached {
            let place = Place::redirect(pins, index);
            findings.check(netlink, self.hook, &place, index, &side.name, program).await?;
        }
        self.attached.retain(|index, _| !findings.lost.contains_key(index));
        Ok(findings)
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
                    self.forget(object, index)?;
                    // Of the probe's it is told as such.
                    if name != PROBE {
                        problems.push(format!("{name}: {error:#}"));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { bail!("cannot attach to {}", problems.join("; ")) }
    }

    /// Once an interface; what pods behind it send to M is dropped by the fence and the backstop.
    fn log_unfit(&mut self, roles: &Roles) {
        self.unfit.retain(|index| roles.unfit.contains_key(index));
        for (&index, (name, why)) in &roles.unfit {
            if self.unfit.insert(index) {
                tracing::warn!(interface = name, index, "matched by --host-interface but not served: {why}");
            }
        }
    }

    /// What was attached by us, or pinned by an earlier agent, and is not pods' any more.
    fn clear_gone(&mut self, roles: &Roles, object: &mut Object, pins: &Pins) -> anyhow::Result<()> {
        let mut gone: BTreeSet<u32> =
            pins.linked_interfaces(LinkOf::Redirect).context("listing the pinned links")?.into_iter().collect();
        gone.extend(self.attached.keys());
        gone.extend(object.interfaces()?.keys().filter_map(Result::ok));
        gone.retain(|index| !roles.pod_sides.contains_key(index));
        for index in gone {
            tc::detach(&Place::redirect(pins, index), self.hook, roles.names.get(&index).map(String::as_str))?;
            self.forget(object, index)?;
            if let Some(attached) = self.attached.remove(&index) {
                tracing::info!(interface = attached.name, index, "gone");
            }
        }
        Ok(())
    }

    /// The interfaces that [`Self::sync`] would announce, in the same roles.
    pub(crate) fn expected(&self, roles: &Roles) -> Vec<Interface> {
        let interface = |(&index, side): (&u32, &PodSide)| Interface {
            index,
            name: side.name.clone(),
            first_seen_ms: self.interface_ages.of(index),
            bridge: side.port.map(|port| port.bridge),
            kind: match side.kind {
                Kind::Veth => InterfaceKind::Veth,
                Kind::Bridge => InterfaceKind::Bridge,
                Kind::Guest | Kind::Child | Kind::Other => InterfaceKind::Other,
            },
        };
        roles.pod_sides.iter().filter(|(_, side)| !side.is_probe()).map(interface).collect()
    }

    /// From now on the backstop drops what comes by this interface, and who opened connections there is not known any
    /// more.
    fn forget(&mut self, object: &mut Object, index: u32) -> anyhow::Result<()> {
        let mut map = object.interfaces_mut()?;
        if map.get(&index, 0).is_ok() {
            map.remove(&index).with_context(|| format!("forgetting interface {index}"))?;
        }
        let mut ports = object.ports()?;
        if ports.get(&index, 0).is_ok() {
            ports.remove(&index).with_context(|| format!("forgetting port {index}"))?;
        }
        self.forget_records(index)
    }

    /// Who opened connections by this interface is not known any more.
    pub(crate) fn forget_records(&mut self, index: u32) -> anyhow::Result<()> {
        self.records.forget(index).with_context(|| format!("forgetting the records of interface {index}"))
    }
}

/// Whether the program on this interface assigns, or only notes.
fn set_port(object: &mut Object, index: u32, side: &PodSide) -> anyhow::Result<()> {
    let mut ports = object.ports()?;
    let known = ports.get(&index, 0).ok();
    match side.port {
        Some(port) if known != Some(port) => {
            ports.insert(index, port, 0).with_context(|| format!("the map of ports is full ({MAX_INTERFACES})"))
        }
        None if known.is_some() => ports.remove(&index).with_context(|| format!("forgetting port {index}")),
        _ => Ok(()),
    }
}

fn attach_one(object: &mut Object, pins: &Pins, hook: tc::Hook, index: u32, name: &str) -> anyhow::Result<tc::Hook> {
    let mut map = object.interfaces_mut()?;
    // Before the program runs: it drops what comes from an interface that is not in the map.
    if map.get(&index, 0).is_err() {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])?;
        map.insert(index, zero, 0).with_context(|| format!("the map of interfaces is full ({MAX_INTERFACES})"))?;
    }
    tc::attach(object.tc_ingress()?, &Place::redirect(pins, index), hook, name)
}

//! Attachment of the TC program to the interfaces of pods, as they appear and disappear.

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
    /// Matched interfaces that cannot be served, and are logged already.
    unfit: BTreeSet<u32>,
    interface_ages: InterfaceAges,
    records: ConnectionRecords,
}

impl Attachments {
    /// Creates it without attachments.
    pub(crate) const fn new(hook: tc::Hook, interface_ages: InterfaceAges, records: ConnectionRecords) -> Self {
        Self { hook, attached: BTreeMap::new(), unfit: BTreeSet::new(), interface_ages, records }
    }

    /// Returns the kind of attachment on this node.
    pub(crate) const fn hook(&self) -> tc::Hook {
        self.hook
    }

    /// Returns whether the program is attached to an interface.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.attached.contains_key(&index)
    }

    /// Returns whether an interface is that of the probe.
    pub(crate) fn is_probe(&self, index: u32) -> bool {
        self.attached.get(&index).is_some_and(PodSide::is_probe)
    }

    /// Returns the name of an attached interface.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.attached.get(&index).map(|attached| attached.name.as_str())
    }

    /// Attaches to new interfaces and cleans up after those that are gone. `announce` gets the whole list before the
    /// program runs on a new interface, and after one is gone. If an interface cannot be attached to, the others still
    /// are, and the error names it.
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

    /// Verifies that the program is attached to each interface, and forgets the interfaces that have lost it: the next
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
                    // Retried at the next reconciliation, if the interface still exists.
                    self.attached.remove(&index);
                    self.forget(object, index)?;
                    // The notice `probe` reports the interface of the probe.
                    if name != PROBE {
                        problems.push(format!("{name}: {error:#}"));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { bail!("cannot attach to {}", problems.join("; ")) }
    }

    /// Logs each unfit interface once. The fence and the backstop drop the packets of its pods to the IMDS.
    fn log_unfit(&mut self, roles: &Roles) {
        self.unfit.retain(|index| roles.unfit.contains_key(index));
        for (&index, (name, why)) in &roles.unfit {
            if self.unfit.insert(index) {
                tracing::warn!(
                    interface = name,
                    index,
                    "--host-interface matches this interface, but its pods cannot be served: {why}"
                );
            }
        }
    }

    /// Detaches from interfaces that no longer lead to a pod, whether this or an earlier agent attached to them.
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
                tracing::info!(interface = attached.name, index, "detached");
            }
        }
        Ok(())
    }

    /// Returns the interfaces that [`Self::sync`] would announce for these roles.
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

    /// Removes an interface from the maps, and its connection records. From now on the backstop drops its packets.
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

    /// Removes the connection records of an interface.
    pub(crate) fn forget_records(&mut self, index: u32) -> anyhow::Result<()> {
        self.records.forget(index).with_context(|| format!("forgetting the records of interface {index}"))
    }
}

/// Sets whether the program on this interface redirects connections, or only records them.
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
    // Added before the program runs: the program drops the packets of an interface that is not in the map.
    if map.get(&index, 0).is_err() {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])?;
        map.insert(index, zero, 0).with_context(|| format!("the map of interfaces is full ({MAX_INTERFACES})"))?;
    }
    tc::attach(object.tc_ingress()?, &Place::redirect(pins, index), hook, name)
}

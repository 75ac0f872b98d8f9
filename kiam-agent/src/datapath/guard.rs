//! The guard on the node's uplinks, as they appear and disappear: `kiam_guard` on their egress, `kiam_guard_in` on the
//! ingress of those that do not lead to pods.

use super::{
    node::roles::Roles,
    programs::{
        attached::Findings,
        object::Object,
        pins::{LinkOf, Pins},
        tc::{self, Place},
    },
};
use anyhow::{Context as _, bail};
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};

/// The guarded uplinks.
pub(crate) struct Guard {
    hook: tc::Hook,
    outward: BTreeSet<u32>,
    inward: BTreeSet<u32>,
}

impl Guard {
    /// Creates it without uplinks.
    pub(crate) const fn new(hook: tc::Hook) -> Self {
        Self { hook, outward: BTreeSet::new(), inward: BTreeSet::new() }
    }

    /// Returns the kind of attachment on this node.
    pub(crate) const fn hook(&self) -> tc::Hook {
        self.hook
    }

    /// Returns whether the egress program and the ingress program are attached to an interface.
    pub(crate) fn has(&self, index: u32) -> [bool; 2] {
        [&self.outward, &self.inward].map(|guarded| guarded.contains(&index))
    }

    /// Attaches to new uplinks, and detaches from interfaces that are no longer uplinks. If an uplink cannot be
    /// attached to, the others still are, and the error names it.
    pub(crate) fn sync(&mut self, object: &mut Object, pins: &Pins, roles: &Roles) -> anyhow::Result<()> {
        let outward: BTreeSet<u32> = roles.uplinks.keys().copied().collect();
        let inward = outward.iter().filter(|index| !roles.pod_sides.contains_key(index)).copied().collect();
        self.detach_former(LinkOf::Guard, &outward, pins, roles)?;
        self.detach_former(LinkOf::GuardIn, &inward, pins, roles)?;
        let mut problems = Vec::new();
        for (of, wanted) in [(LinkOf::Guard, &outward), (LinkOf::GuardIn, &inward)] {
            for &index in wanted.difference(&self.guarded(of).clone()) {
                let name = roles.uplinks.get(&index).map_or("", String::as_str);
                match self.attach(object, pins, of, index, name) {
                    Ok(()) => tracing::info!(interface = name, index, ?of, "attached"),
                    Err(error) => problems.push(format!("{name}: {error:#}")),
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { bail!("cannot attach the guard to {}", problems.join("; ")) }
    }

    /// Verifies that the programs are attached to the uplinks, and forgets the uplinks that have lost one: the next
    /// [`Self::sync`] attaches it again. `programs`: ids of the egress and the ingress program.
    pub(crate) async fn verify(
        &mut self,
        netlink: &Handle,
        pins: &Pins,
        names: &BTreeMap<u32, String>,
        programs: [u32; 2],
    ) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        for (of, program) in [LinkOf::Guard, LinkOf::GuardIn].into_iter().zip(programs) {
            let mut lost = Findings::default();
            for index in self.guarded(of).clone() {
                let name = names.get(&index).map_or("", String::as_str);
                lost.check(netlink, self.hook, &place(of, pins, index), index, name, program).await?;
            }
            self.guarded(of).retain(|index| !lost.lost.contains_key(index));
            findings.add(lost);
        }
        Ok(findings)
    }

    fn attach(&mut self, object: &mut Object, pins: &Pins, of: LinkOf, index: u32, name: &str) -> anyhow::Result<()> {
        let program = match of {
            LinkOf::GuardIn => object.guard_in()?,
            _ => object.guard()?,
        };
        self.hook = tc::attach(program, &place(of, pins, index), self.hook, name)?;
        self.guarded(of).insert(index);
        Ok(())
    }

    fn detach_former(&mut self, of: LinkOf, wanted: &BTreeSet<u32>, pins: &Pins, roles: &Roles) -> anyhow::Result<()> {
        let mut gone = self.guarded(of).clone();
        gone.extend(pins.linked_interfaces(of).context("listing the pinned links")?);
        for index in gone.difference(wanted) {
            tc::detach(&place(of, pins, *index), self.hook, roles.names.get(index).map(String::as_str))?;
            self.guarded(of).remove(index);
        }
        Ok(())
    }

    const fn guarded(&mut self, of: LinkOf) -> &mut BTreeSet<u32> {
        match of {
            LinkOf::GuardIn => &mut self.inward,
            _ => &mut self.outward,
        }
    }
}

fn place(of: LinkOf, pins: &Pins, index: u32) -> Place {
    match of {
        LinkOf::GuardIn => Place::guard_in(pins, index),
        _ => Place::guard(pins, index),
    }
}

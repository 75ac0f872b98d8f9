//! The self-check: verifies that everything is still where it was put, and that nothing of others is in the way. What
//! is missing counts as lost; the reconciliation that follows sets it up again.

pub(super) mod probe;
pub(super) mod reachability;
mod repairs;

use super::{
    fence::{Found, Verdict},
    foreign::{flowtables, nat::ForeignNat, netfilter::nft::Nft, unserved},
    node::{devices, family::Family, roles::PROBE},
    parts::Parts,
    programs::{backstop, pins::Pins},
    redirect::listener,
};
use crate::report::{Condition, Notice, condition};
use anyhow::Context as _;
use repairs::{Lost, Repairs};
use std::collections::BTreeMap;

/// Results of the self-checks so far.
pub(crate) struct SelfCheck {
    nft: Option<Nft>,
    foreign_nat: ForeignNat,
    /// True if the backstop is attached; without it the fence must drop.
    backstop: bool,
    /// True if everything was in place once: objects that are missing from then on were lost.
    settled: bool,
    repairs: Repairs,
    conditions: Vec<Condition>,
    notices: Vec<Notice>,
}

impl SelfCheck {
    /// Creates the self-check of a datapath that is about to be set up.
    pub(crate) fn new(nft: Option<Nft>, take_over: bool) -> Self {
        Self {
            foreign_nat: ForeignNat::new(nft.clone(), take_over),
            nft,
            backstop: true,
            settled: false,
            repairs: Repairs::default(),
            conditions: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Runs all checks. `closed`: the fence is in place.
    pub(crate) async fn run(&mut self, parts: &mut Parts, closed: bool) {
        let maps = self.check_maps(parts);
        let backstop = self.check_backstop(parts);
        self.backstop = backstop.is_ok();
        let slots = self.check_slots(parts);
        let mut notices = Vec::new();
        let programs = self.check_programs(parts, &mut notices).await;
        self.conditions = vec![
            condition("maps", maps),
            condition("backstop", backstop),
            condition("slots", slots),
            condition("self-check", programs),
            condition("foreign-nat", self.foreign_nat.check(closed).await),
            condition("flowtables", flowtables::check(self.nft.as_ref(), &parts.roles).await),
        ];
        self.notices = notices;
    }

    /// Returns what the fence must do with pods' packets.
    pub(crate) const fn verdict(&self) -> Verdict {
        if self.backstop { Verdict::Local } else { Verdict::Blackhole }
    }

    /// Counts what the fence lacked. Returns an error if rules of others come before it.
    pub(crate) fn take_fence(&mut self, family: Family, found: anyhow::Result<Found>) -> anyhow::Result<()> {
        let found = found?;
        if self.settled {
            for preference in &found.rules {
                self.repairs.count(Lost::Rule, &format!("the {} rule at pref {preference}", family.name()));
            }
            if found.route && self.backstop {
                self.repairs.count(Lost::Route, &format!("the route to {}", family.imds()));
            }
        }
        found.ensure_first()
    }

    /// Takes the conditions of a reconciliation: once all of them hold, missing objects count as lost.
    pub(crate) fn settle(&mut self, conditions: &[Condition]) {
        self.settled |= conditions.iter().all(|condition| condition.problem.is_none());
    }

    /// Returns the conditions as of the last run.
    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Returns the warnings as of the last run.
    pub(crate) fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Returns how often each kind of object was lost.
    pub(crate) fn repairs(&self) -> BTreeMap<String, u64> {
        self.repairs.all()
    }

    /// Pins maps again that have lost their pins.
    fn check_maps(&mut self, parts: &mut Parts) -> anyhow::Result<()> {
        parts.pins = Pins::open(&parts.root)?;
        for name in parts.object.pin_missing(&parts.pins)? {
            self.repairs.count(Lost::Map, &format!("the pin of the map {name}"));
        }
        Ok(())
    }

    /// Puts the listening sockets into their slots again if a slot is empty or holds another socket.
    fn check_slots(&mut self, parts: &mut Parts) -> anyhow::Result<()> {
        let mut wrong = false;
        for family in parts.fence.served() {
            let Some(ours) = listener::port(&parts.listeners, family) else { continue };
            if probe::port_in_slot(&mut parts.object, family)? != ours {
                let what = format!("the {} listening socket in its slot", family.name());
                self.repairs.count(Lost::Listener, &what);
                wrong = true;
            }
        }
        if wrong { parts.object.put_listeners(&parts.listeners) } else { Ok(()) }
    }

    /// Attaches the backstop again if it is missing.
    fn check_backstop(&mut self, parts: &mut Parts) -> anyhow::Result<()> {
        if backstop::is_attached(&mut parts.object, &parts.pins)? {
            return Ok(());
        }
        self.repairs.count(Lost::Backstop, "the backstop");
        backstop::attach(&mut parts.object, &parts.pins).context("attaching the backstop")
    }

    /// Verifies the programs on all interfaces, and collects notices about programs of others that run first.
    async fn check_programs(&mut self, parts: &mut Parts, notices: &mut Vec<Notice>) -> anyhow::Result<()> {
        let Parts { object, pins, guard, attachments, netlink, roles, config, .. } = parts;
        let redirect = object.tc_ingress()?.info()?.id();
        let guards = [object.guard()?.info()?.id(), object.guard_in()?.info()?.id()];
        let mut findings = attachments.verify(netlink, pins, redirect).await?;
        for name in findings.lost.values().filter(|&name| name != PROBE) {
            self.repairs.count(Lost::Redirect, &format!("the program of {name}"));
        }
        let devices = devices::list(netlink).await.context("listing the interfaces")?;
        let names = devices.iter().map(|device| (device.index, device.name.clone())).collect();
        let guarded = guard.verify(netlink, pins, &names, guards).await?;
        for name in guarded.lost.values() {
            self.repairs.count(Lost::Guard, &format!("the guard of {name}"));
        }
        findings.add(guarded);
        notices.extend(findings.behind.iter().map(|(name, programs)| ahead(name, programs)));
        notices.extend(unserved::notices(netlink, &devices, roles, config).await?);
        Ok(())
    }
}

fn ahead(interface: &str, programs: &[String]) -> Notice {
    let what = "programs of others run before kiam's, and packets that they drop or accept never reach it";
    notice("foreign-program", format!("{interface}: {what}: {}", programs.join("; ")))
}

fn notice(about: &str, text: String) -> Notice {
    Notice { about: about.to_owned(), text }
}

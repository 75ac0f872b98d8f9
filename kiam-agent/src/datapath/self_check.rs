//! The self-check: is everything still where it was put, and does something of others stand in the way? What is missing
//! is noted as lost, so that [`Datapath::reconcile`], which comes next, sets it up again.

pub(super) mod probe;
pub(super) mod reachability;
mod repairs;

use super::{
    Datapath,
    fence::{Found, Verdict},
    foreign::{flowtables, nat::ForeignNat, netfilter::nft::Nft, unserved},
    node::{devices, family::Family, roles::PROBE},
    programs::{attached, backstop, pins::Pins},
    redirect::listener,
};
use crate::report::{Condition, Notice, condition};
use anyhow::Context as _;
use repairs::{Lost, Repairs};
use std::collections::BTreeMap;

/// What the checks have found so far.
pub(crate) struct Check {
    nft: Option<Nft>,
    foreign_nat: ForeignNat,
    /// Without the backstop the fence must drop.
    backstop: bool,
    /// Everything stood once: what is missing from now on was lost.
    settled: bool,
    repairs: Repairs,
    conditions: Vec<Condition>,
    notices: Vec<Notice>,
}

impl Check {
    /// Of a datapath that is about to be set up.
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

    /// What the fence is to do.
    pub(crate) const fn verdict(&self) -> Verdict {
        if self.backstop { Verdict::Local } else { Verdict::Blackhole }
    }

    /// Counts what the fence lacked, and tells whether it holds now.
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
        found.alone()
    }

    /// After [`Datapath::reconcile`]: `conditions` are what it found.
    pub(crate) fn settle(&mut self, conditions: &[Condition]) {
        self.settled |= conditions.iter().all(|condition| condition.problem.is_none());
    }

    /// What must hold besides, as of the last check.
    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl Datapath {
    /// Looks at what the kernel does not tell of by itself, or what would be too dear to look at with each piece of
    /// news. After a first [`Self::reconcile`], which closes the node; and before another one, which repairs.
    pub(crate) async fn self_check(&mut self) {
        let mut fences = self.fence.families().iter().map(|family| family.condition());
        let closed = fences.all(|name| self.holds(name));
        let maps = self.check_maps();
        let backstop = self.check_backstop();
        self.check.backstop = backstop.is_ok();
        let slots = self.check_slots();
        let mut notices = Vec::new();
        let programs = self.check_programs(&mut notices).await;
        self.check.conditions = vec![
            condition("maps", maps),
            condition("backstop", backstop),
            condition("slots", slots),
            condition("self-check", programs),
            condition("foreign-nat", self.check.foreign_nat.check(closed).await),
            condition("flowtables", flowtables::check(self.check.nft.as_ref(), &self.roles).await),
        ];
        self.check.notices = notices;
    }

    /// How often something was lost, by what.
    pub(crate) fn repairs(&self) -> BTreeMap<String, u64> {
        self.check.repairs.all()
    }

    /// What the node's owner should know although pods are served.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.check.notices.iter().chain(self.reachability.notice()).cloned().collect()
    }

    fn holds(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| condition.name == name && condition.problem.is_none())
    }

    /// Pins again what has lost its pin.
    fn check_maps(&mut self) -> anyhow::Result<()> {
        self.pins = Pins::open(&self.root)?;
        for name in self.object.pin_missing(&self.pins)? {
            self.check.repairs.count(Lost::Map, &format!("the pin of the map {name}"));
        }
        Ok(())
    }

    /// Puts the listening sockets into their slots again when another one is there, or none.
    fn check_slots(&mut self) -> anyhow::Result<()> {
        let mut wrong = false;
        for family in self.fence.served() {
            let Some(ours) = listener::port(&self.listeners, family) else { continue };
            if probe::port_in_slot(&mut self.object, family)? != ours {
                let what = format!("the {} listening socket in its slot", family.name());
                self.check.repairs.count(Lost::Listener, &what);
                wrong = true;
            }
        }
        if wrong { self.object.put_listeners(&self.listeners) } else { Ok(()) }
    }

    /// Attaches the backstop again when it is gone.
    fn check_backstop(&mut self) -> anyhow::Result<()> {
        let program = self.object.sk_lookup()?.info()?.id();
        if attached::in_namespace(&self.pins.backstop(), program)? {
            return Ok(());
        }
        self.check.repairs.count(Lost::Backstop, "the backstop");
        backstop::attach(&mut self.object, &self.pins).context("attaching the backstop")
    }

    /// Looks at the programs on all interfaces.
    async fn check_programs(&mut self, notices: &mut Vec<Notice>) -> anyhow::Result<()> {
        let redirect = self.object.tc_ingress()?.info()?.id();
        let guards = [self.object.guard()?.info()?.id(), self.object.guard_in()?.info()?.id()];
        let mut findings = self.attachments.verify(&self.netlink, &self.pins, redirect).await?;
        for name in findings.lost.values().filter(|&name| name != PROBE) {
            self.check.repairs.count(Lost::Redirect, &format!("the program of {name}"));
        }
        let devices = devices::devices(&self.netlink).await.context("listing the interfaces")?;
        let names = devices.iter().map(|device| (device.index, device.name.clone())).collect();
        let guarded = self.guard.verify(&self.netlink, &self.pins, &names, guards).await?;
        for name in guarded.lost.values() {
            self.check.repairs.count(Lost::Guard, &format!("the guard of {name}"));
        }
        findings.add(guarded);
        notices.extend(findings.behind.iter().map(|(name, programs)| ahead(name, programs)));
        notices.extend(unserved::notices(&self.netlink, &devices, &self.roles, &self.config).await?);
        Ok(())
    }
}

fn ahead(interface: &str, programs: &[String]) -> Notice {
    let what = "programs of others run before ours, and what they take or let pass never gets to it";
    notice("foreign-program", format!("{interface}: {what}: {}", programs.join("; ")))
}

fn notice(about: &str, text: String) -> Notice {
    Notice { about: about.to_owned(), text }
}

//! What an agent tells of its datapath to people.

mod choices;
pub(super) mod counters;
pub(super) mod inventory;

use super::{
    Datapath,
    node::{
        devices::Kind,
        roles::{PodSide, Roles},
    },
};
use crate::report::{DatapathReport, InterfaceReport, ProgramReport};
use kiam_common::abi::{PROG_GUARD, PROG_GUARD_IN, PROG_PROBE_OUT, PROG_TC_INGRESS};
use std::collections::BTreeSet;

impl Datapath {
    /// The datapath as of the last [`Self::reconcile`].
    pub(crate) fn report(&self) -> DatapathReport {
        let program = |(name, id): (&str, u32)| ProgramReport { name: name.to_owned(), id };
        DatapathReport {
            generation: self.generation,
            choices: self.choices(),
            kubepods: self.kubepods.as_ref().map(|kubepods| kubepods.path().to_owned()),
            interfaces: self.interface_reports(),
            programs: self.object.loaded().into_iter().map(program).collect(),
        }
    }

    fn interface_reports(&self) -> Vec<InterfaceReport> {
        let Roles { pod_sides, uplinks, unfit, names, kinds } = &self.roles;
        let indexes: BTreeSet<u32> = pod_sides.keys().chain(uplinks.keys()).chain(unfit.keys()).copied().collect();
        let report = |index| InterfaceReport {
            index,
            name: names.get(&index).cloned().unwrap_or_default(),
            kind: kinds.get(&index).map_or("other", |kind| kind_name(*kind)).to_owned(),
            roles: roles_of(&self.roles, index),
            bridge: pod_sides.get(&index).and_then(|side| names.get(&side.port?.bridge)).cloned(),
            programs: self.programs_on(index).into_iter().map(str::to_owned).collect(),
            problem: unfit.get(&index).map(|(_, why)| (*why).to_owned()),
        };
        indexes.into_iter().map(report).collect()
    }

    fn programs_on(&self, index: u32) -> Vec<&'static str> {
        let [outward, inward] = self.guard.has(index);
        let on = [
            (PROG_TC_INGRESS, self.attachments.has(index)),
            (PROG_PROBE_OUT, self.reachability.watches(index)),
            (PROG_GUARD, outward),
            (PROG_GUARD_IN, inward),
        ];
        on.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
    }
}

fn roles_of(roles: &Roles, index: u32) -> Vec<String> {
    let side = roles.pod_sides.get(&index);
    let is_port = side.is_some_and(|side| side.port.is_some());
    let is_probe = side.is_some_and(PodSide::is_probe);
    let held = [
        ("pod", side.is_some() && !is_port && !is_probe),
        ("port", is_port),
        ("probe", is_probe),
        ("uplink", roles.uplinks.contains_key(&index)),
        ("unfit", roles.unfit.contains_key(&index)),
    ];
    held.into_iter().filter(|(_, held)| *held).map(|(name, _)| name.to_owned()).collect()
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bridge => "bridge",
        Kind::Veth => "veth",
        Kind::Guest => "guest",
        Kind::Child | Kind::Other => "other",
    }
}

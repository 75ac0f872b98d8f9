//! The state of the datapath for people: `kiam-agent status` and metrics.

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

/// Returns the datapath as of its last reconciliation.
pub(super) fn report(datapath: &Datapath) -> DatapathReport {
    let program = |(name, id): (&str, u32)| ProgramReport { name: name.to_owned(), id };
    DatapathReport {
        generation: datapath.generation,
        choices: choices::choices(datapath),
        kubepods: datapath.kubepods.as_ref().map(|kubepods| kubepods.path().to_owned()),
        interfaces: interfaces(datapath),
        programs: datapath.parts.object.loaded().into_iter().map(program).collect(),
    }
}

fn interfaces(datapath: &Datapath) -> Vec<InterfaceReport> {
    let roles = &datapath.parts.roles;
    let Roles { pod_sides, uplinks, unfit, names, kinds } = roles;
    let indexes: BTreeSet<u32> = pod_sides.keys().chain(uplinks.keys()).chain(unfit.keys()).copied().collect();
    let report = |index| InterfaceReport {
        index,
        name: names.get(&index).cloned().unwrap_or_default(),
        kind: kinds.get(&index).map_or("other", |kind| kind_name(*kind)).to_owned(),
        roles: roles_of(roles, index),
        bridge: pod_sides.get(&index).and_then(|side| names.get(&side.port?.bridge)).cloned(),
        programs: programs_on(datapath, index).into_iter().map(str::to_owned).collect(),
        problem: unfit.get(&index).map(|(_, why)| (*why).to_owned()),
    };
    indexes.into_iter().map(report).collect()
}

fn programs_on(datapath: &Datapath, index: u32) -> Vec<&'static str> {
    let [outward, inward] = datapath.parts.guard.has(index);
    let on = [
        (PROG_TC_INGRESS, datapath.parts.attachments.has(index)),
        (PROG_PROBE_OUT, datapath.reachability.watches(index)),
        (PROG_GUARD, outward),
        (PROG_GUARD_IN, inward),
    ];
    on.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
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

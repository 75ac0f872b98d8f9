//! The map of exempt pods, which keep the node role: the eBPF programs look up cgroups in it. The agent reconciles it
//! with the list of exempt pods and with the cgroups that they have now.

use crate::{
    attestation::PodUid,
    datapath::{
        node::kubepods::Kubepods,
        programs::{optional, pins::Pins},
    },
    report::ExemptReport,
};
use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use kiam_common::abi::{EXEMPT_AGENT, EXEMPT_LISTED, MAP_EXEMPT};
use std::collections::{BTreeMap, BTreeSet};
use tracing::field::display;

/// The pods that must keep the node role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExemptPods {
    /// Pods that are exempt by their ServiceAccounts.
    pub(crate) listed: BTreeSet<PodUid>,
    /// True if the list is complete. Until it is, no pod loses an exemption that an earlier agent gave.
    pub(crate) complete: bool,
    /// This agent's own pod.
    pub(crate) own: Option<PodUid>,
}

/// Entries of the map: kind of exemption by cgroup.
type Entries = BTreeMap<u64, u8>;

/// The map, opened from its pin.
pub(crate) struct ExemptMap(HashMap<MapData, u64, u8>);

impl ExemptMap {
    /// Opens the map.
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let map = MapData::from_pin(pins.folder().join(MAP_EXEMPT)).context("opening the map of exempt pods")?;
        Ok(Self(Map::HashMap(map).try_into()?))
    }

    /// Reconciles the map. Returns the exempt pods that have no cgroup yet: the caller must poll for those, because no
    /// event announces a cgroup. Removes nothing if the cgroups cannot be read.
    pub(crate) fn sync(&mut self, kubepods: Option<&Kubepods>, pods: &ExemptPods) -> anyhow::Result<BTreeSet<PodUid>> {
        let cgroups = cgroups(kubepods)?;
        let present = self.entries();
        let wanted = wanted(&cgroups, &present, pods);
        for (cgroup, kind) in wanted.iter().filter(|(cgroup, kind)| present.get(cgroup) != Some(kind)) {
            self.0.insert(cgroup, kind, 0).context("adding to the exempt pods")?;
            let pod = cgroups.get(cgroup).map(display);
            tracing::info!(pod, cgroup, "exemption added: this pod keeps the node role");
        }
        for cgroup in present.keys().filter(|cgroup| !wanted.contains_key(cgroup)) {
            optional(self.0.remove(cgroup)).context("removing from the exempt pods")?;
            let pod = cgroups.get(cgroup).map(display);
            tracing::info!(pod, cgroup, "exemption removed");
        }
        let found: BTreeSet<PodUid> = cgroups.into_values().collect();
        Ok(&pods.listed - &found)
    }

    /// Adds this agent's own pod and changes nothing else, because another agent may be responsible for the map.
    pub(crate) fn add_own(&mut self, kubepods: Option<&Kubepods>, own: PodUid) -> anyhow::Result<()> {
        for (cgroup, _) in cgroups(kubepods)?.into_iter().filter(|(_, pod)| *pod == own) {
            self.0.insert(cgroup, EXEMPT_AGENT, 0).context("adding to the exempt pods")?;
        }
        Ok(())
    }

    /// Returns the entries and their pods.
    pub(crate) fn report(&self, kubepods: Option<&Kubepods>) -> anyhow::Result<Vec<ExemptReport>> {
        let cgroups = cgroups(kubepods)?;
        let report = |(cgroup, kind)| ExemptReport {
            cgroup,
            pod: cgroups.get(&cgroup).map(ToString::to_string),
            why: if kind == EXEMPT_AGENT { "agent" } else { "service-account" }.to_owned(),
        };
        Ok(self.entries().into_iter().map(report).collect())
    }

    fn entries(&self) -> Entries {
        // Only agents write to this map, one at a time; an entry that is missed now is found at the next call.
        self.0.iter().filter_map(Result::ok).collect()
    }
}

fn cgroups(kubepods: Option<&Kubepods>) -> anyhow::Result<BTreeMap<u64, PodUid>> {
    match kubepods {
        Some(kubepods) => kubepods.pods().with_context(|| format!("reading {}", kubepods.path().display())),
        None => Ok(BTreeMap::new()),
    }
}

/// Returns the entries that the map must have: never a cgroup that no longer exists.
fn wanted(cgroups: &BTreeMap<u64, PodUid>, present: &Entries, pods: &ExemptPods) -> Entries {
    let kind = |cgroup: &u64, pod: &PodUid| match present.get(cgroup) {
        _ if pods.own == Some(*pod) => Some(EXEMPT_AGENT),
        // The pod of the other agent of an upgrade, which stays exempt as long as it exists.
        Some(&EXEMPT_AGENT) => Some(EXEMPT_AGENT),
        _ if pods.listed.contains(pod) => Some(EXEMPT_LISTED),
        Some(_) if !pods.complete => Some(EXEMPT_LISTED),
        _ => None,
    };
    cgroups.iter().filter_map(|(cgroup, pod)| Some((*cgroup, kind(cgroup, pod)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(last: u64) -> PodUid {
        PodUid::parse(&format!("11111111-2222-4333-8444-{last:012x}")).unwrap()
    }

    /// Cgroup 10 belongs to pod 1, and so on.
    fn cgroups(pods: &[u64]) -> BTreeMap<u64, PodUid> {
        pods.iter().map(|pod| (pod * 10, uid(*pod))).collect()
    }

    fn pods(listed: &[u64], complete: bool, own: Option<u64>) -> ExemptPods {
        ExemptPods { listed: listed.iter().map(|pod| uid(*pod)).collect(), complete, own: own.map(uid) }
    }

    #[test]
    fn listed_pods_and_own_pod_with_cgroups_are_wanted() {
        let found = wanted(&cgroups(&[1, 2, 3]), &Entries::new(), &pods(&[1, 9], true, Some(3)));
        assert_eq!(found, Entries::from([(10, EXEMPT_LISTED), (30, EXEMPT_AGENT)]));
    }

    /// A pod that is no longer listed, or no longer has a cgroup, is removed.
    #[test]
    fn unlisted_or_ended_pods_are_removed() {
        let present = Entries::from([(10, EXEMPT_LISTED), (20, EXEMPT_LISTED), (40, EXEMPT_LISTED)]);
        let found = wanted(&cgroups(&[1, 2, 3]), &present, &pods(&[1, 4], true, None));
        assert_eq!(found, Entries::from([(10, EXEMPT_LISTED)]));
    }

    /// Until the list is complete only pods that have ended are removed.
    #[test]
    fn incomplete_list_removes_only_ended_pods() {
        let present = Entries::from([(10, EXEMPT_LISTED), (40, EXEMPT_LISTED)]);
        let found = wanted(&cgroups(&[1, 2]), &present, &pods(&[2], false, None));
        assert_eq!(found, Entries::from([(10, EXEMPT_LISTED), (20, EXEMPT_LISTED)]));
    }

    #[test]
    fn another_agents_pod_stays_while_it_has_a_cgroup() {
        let present = Entries::from([(10, EXEMPT_AGENT), (20, EXEMPT_AGENT)]);
        assert_eq!(
            wanted(&cgroups(&[1, 3]), &present, &pods(&[], true, Some(3))),
            Entries::from([(10, EXEMPT_AGENT), (30, EXEMPT_AGENT)])
        );
        assert_eq!(wanted(&cgroups(&[1]), &present, &pods(&[1], true, None)), Entries::from([(10, EXEMPT_AGENT)]));
    }
}

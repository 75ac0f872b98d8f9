//! The index of pods by address and uid, with their namespaces: a plain state machine, fed with facts (apply, remove,
//! reset). Tests need no API server.
//!
//! ```text
//! name ──▶ uid ──▶ PodFacts ──▶ addresses ──▶ Sighting {uid, since}
//!                     └──▶ namespace ──▶ NamespaceFacts
//! ```

use super::convert::PodName;
use crate::core::{
    ids::PodUid,
    lookup::{LookupError, Origin, PodChange},
    namespace::NamespaceFacts,
    pod::PodFacts,
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};
use tokio::time::Instant;

/// Known pods and namespaces of the cluster.
#[derive(Default)]
pub(super) struct Index {
    pods: HashMap<PodUid, Arc<PodFacts>>,
    names: HashMap<PodName, PodUid>,
    addresses: HashMap<IpAddr, Vec<Sighting>>,
    namespaces: HashMap<String, Arc<NamespaceFacts>>,
    /// Pods that changed since they were last taken. Bounded by the number of existing and since removed pods.
    changed: HashSet<PodUid>,
    pods_listed: bool,
    namespaces_listed: bool,
}

/// A pod at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sighting {
    uid: PodUid,
    /// Time when this pod was first seen at this address; updates and relists of the pod don't change it.
    since: Instant,
}

/// Result of a lookup.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) pod: Arc<PodFacts>,
    pub(super) namespace: Option<Arc<NamespaceFacts>>,
    /// `None`: found by its uid alone.
    pub(super) since: Option<Instant>,
}

impl Index {
    /// Returns `true` once pods and namespaces have been listed.
    pub(super) fn is_listed(&self) -> bool {
        self.pods_listed && self.namespaces_listed
    }

    pub(super) fn apply_pod(&mut self, facts: PodFacts, now: Instant) {
        let name = PodName { namespace: facts.namespace.clone(), name: facts.name.clone() };
        // The watch missed the deletion of the former pod of this name.
        if let Some(old) = self.names.insert(name, facts.uid.clone())
            && old != facts.uid
        {
            self.remove_uid(&old);
        }
        let old = self.pods.get(&facts.uid).cloned();
        if old.as_deref() == Some(&facts) {
            return;
        }
        self.changed.insert(facts.uid.clone());
        let before = old.as_deref().map(sighted).unwrap_or_default();
        let after = sighted(&facts);
        for address in before.iter().filter(|address| !after.contains(address)) {
            self.remove_sighting(*address, &facts.uid);
        }
        for address in after.iter().filter(|address| !before.contains(address)) {
            self.addresses.entry(*address).or_default().push(Sighting { uid: facts.uid.clone(), since: now });
        }
        self.pods.insert(facts.uid.clone(), Arc::new(facts));
    }

    pub(super) fn remove_pod(&mut self, name: &PodName) {
        if let Some(uid) = self.names.remove(name) {
            self.remove_uid(&uid);
        }
    }

    /// Replaces all pods by those of a list.
    pub(super) fn reset_pods(&mut self, all: Vec<PodFacts>, now: Instant) {
        let listed: HashSet<&PodUid> = all.iter().map(|facts| &facts.uid).collect();
        let gone: Vec<PodUid> = self.pods.keys().filter(|uid| !listed.contains(uid)).cloned().collect();
        for uid in gone {
            self.remove_uid(&uid);
        }
        let pods = &self.pods;
        self.names.retain(|_, uid| pods.contains_key(uid));
        for facts in all {
            self.apply_pod(facts, now);
        }
        self.pods_listed = true;
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Arc<NamespaceFacts>> {
        self.namespaces.get(name)
    }

    pub(super) fn apply_namespace(&mut self, facts: NamespaceFacts) {
        self.namespace_changed(&facts.name);
        self.namespaces.insert(facts.name.clone(), Arc::new(facts));
    }

    pub(super) fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.namespace_changed(name);
        }
    }

    pub(super) fn reset_namespaces(&mut self, all: Vec<NamespaceFacts>) {
        self.namespaces = all.into_iter().map(|facts| (facts.name.clone(), Arc::new(facts))).collect();
        self.changed.extend(self.pods.keys().cloned());
        self.namespaces_listed = true;
    }

    /// Finds the one active pod of a request. `not_before` is the time when the interface of the request appeared: a
    /// pod seen at the address before that is a former owner of the address. A known uid decides instead of the time.
    pub(super) fn find(&self, origin: &Origin, not_before: Option<Instant>) -> Result<Hit, LookupError> {
        if !self.is_listed() {
            return Err(LookupError::NotSynced);
        }
        match origin {
            Origin::Address(address) => self.find_at(*address, not_before),
            Origin::Both(address, uid) => self.find_both(*address, uid),
            Origin::Uid(uid) => self.find_by_uid(uid),
        }
    }

    fn find_at(&self, address: IpAddr, not_before: Option<Instant>) -> Result<Hit, LookupError> {
        let mut candidates =
            self.seen_at(address).filter(|sighting| not_before.is_none_or(|not_before| sighting.since >= not_before));
        let sighting = candidates.next().ok_or(LookupError::NotFound)?;
        if candidates.next().is_some() {
            return Err(LookupError::Ambiguous);
        }
        self.hit(&sighting.uid, Some(sighting.since))
    }

    fn find_both(&self, address: IpAddr, uid: &PodUid) -> Result<Hit, LookupError> {
        match (self.seen_at(address).find(|sighting| sighting.uid == *uid), self.pods.get(uid)) {
            (Some(sighting), _) => self.hit(uid, Some(sighting.since)),
            (None, Some(pod)) if pod.on_node_network || !sighted(pod).is_empty() => Err(LookupError::Contradiction),
            // The watch has not delivered its address.
            (None, _) => Err(LookupError::NotFound),
        }
    }

    fn find_by_uid(&self, uid: &PodUid) -> Result<Hit, LookupError> {
        match self.pods.get(uid) {
            Some(pod) if pod.active => self.hit(uid, None),
            _ => Err(LookupError::NotFound),
        }
    }

    fn seen_at(&self, address: IpAddr) -> impl Iterator<Item = &Sighting> {
        self.addresses.get(&address.to_canonical()).into_iter().flatten()
    }

    fn hit(&self, uid: &PodUid, since: Option<Instant>) -> Result<Hit, LookupError> {
        let pod = self.pods.get(uid).ok_or(LookupError::NotFound)?;
        let namespace = self.namespaces.get(&pod.namespace).cloned();
        Ok(Hit { pod: Arc::clone(pod), namespace, since })
    }

    /// Takes at most `max` of the changed pods.
    pub(super) fn take_changed(&mut self, max: usize) -> Vec<PodChange> {
        let uids: Vec<PodUid> = self.changed.iter().take(max).cloned().collect();
        uids.into_iter()
            .map(|pod| {
                self.changed.remove(&pod);
                let facts = self.pods.get(&pod);
                let now = facts.map(|facts| (Arc::clone(facts), self.namespaces.get(&facts.namespace).cloned()));
                PodChange { pod, now }
            })
            .collect()
    }

    fn remove_uid(&mut self, uid: &PodUid) {
        if let Some(facts) = self.pods.remove(uid) {
            for address in sighted(&facts) {
                self.remove_sighting(*address, uid);
            }
            self.changed.insert(uid.clone());
        }
    }

    fn remove_sighting(&mut self, address: IpAddr, uid: &PodUid) {
        if let Some(sightings) = self.addresses.get_mut(&address) {
            sightings.retain(|sighting| sighting.uid != *uid);
            if sightings.is_empty() {
                self.addresses.remove(&address);
            }
        }
    }

    fn namespace_changed(&mut self, name: &str) {
        self.changed.extend(self.pods.values().filter(|pod| pod.namespace == name).map(|pod| pod.uid.clone()));
    }
}

/// Returns the addresses that identify a pod. A pod that has ended has no address, though the API server still lists them.
fn sighted(facts: &PodFacts) -> &[IpAddr] {
    if facts.active { &facts.addresses } else { &[] }
}

#[cfg(test)]
mod tests;

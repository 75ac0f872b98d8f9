//! The shared index, with lookups that wait for changes without polling.

use super::index::Index;
use crate::core::{
    lookup::{Found, LookupError, PodChange, PodChanges, PodLookup, Query},
    namespace::{Anchoring, NamespaceFacts},
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Longest wait of a lookup for the watch: SDKs give up after a second.
const LOOKUP_WAIT_MAX: Duration = Duration::from_millis(900);

/// Pods and namespaces of the cluster.
pub(crate) struct Cluster {
    index: RwLock<Index>,
    /// Number of changes of the index; waiting lookups watch it.
    version: watch::Sender<u64>,
    anchoring: Anchoring,
}

impl Cluster {
    pub(crate) fn new(anchoring: Anchoring) -> Self {
        Self { index: RwLock::default(), version: watch::Sender::new(0), anchoring }
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the index and wakes the lookups that wait for a change.
    pub(super) fn change(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) fn namespace(&self, name: &str) -> Option<Arc<NamespaceFacts>> {
        self.read().namespace(name).cloned()
    }

    pub(super) const fn anchoring(&self) -> Anchoring {
        self.anchoring
    }

    fn find_now(&self, query: &Query, not_before: Option<Instant>) -> Result<Found, LookupError> {
        let hit = self.read().find(&query.origin, not_before)?;
        let seen_for = hit.since.map(|since| since.elapsed()).unwrap_or_default();
        Ok(Found { pod: hit.pod, namespace: hit.namespace, seen_for })
    }
}

impl PodLookup for Cluster {
    fn is_synced(&self) -> bool {
        self.read().is_listed()
    }

    async fn find(&self, query: Query) -> Result<Found, LookupError> {
        let now = Instant::now();
        // An age that exceeds the clock's range excludes no pod.
        let not_before = query.interface_age.and_then(|age| now.checked_sub(age));
        let deadline = now + query.wait.min(LOOKUP_WAIT_MAX);
        let mut version = self.version.subscribe();
        loop {
            // Before the lookup, so that the wait notices a change during it.
            version.mark_unchanged();
            let found = self.find_now(&query, not_before);
            let settled = match &found {
                // A namespace that the watch has not delivered permits nothing, so wait for it.
                Ok(found) => found.namespace.is_some(),
                Err(LookupError::NotSynced) => true,
                // A pod uses its new address before the watch delivers it.
                Err(LookupError::NotFound | LookupError::Ambiguous | LookupError::Contradiction) => false,
            };
            if settled || !matches!(tokio::time::timeout_at(deadline, version.changed()).await, Ok(Ok(()))) {
                return found;
            }
        }
    }
}

impl PodChanges for Cluster {
    async fn changed(&self, seen: &mut u64) {
        let mut version = self.version.subscribe();
        // The sender lives as long as `self`, so there is no error.
        if let Ok(version) = version.wait_for(|version| version != seen).await {
            *seen = *version;
        }
    }

    fn take(&self, max: usize) -> Vec<PodChange> {
        self.index.write().unwrap_or_else(PoisonError::into_inner).take_changed(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ids::PodUid, lookup::Origin, namespace::Permitted, pod::PodFacts};
    use std::net::IpAddr;

    const MS: Duration = Duration::from_millis(1);

    fn pod(uid: &str) -> PodFacts {
        PodFacts {
            uid: PodUid::parse(uid).unwrap(),
            namespace: "ns".to_owned(),
            name: uid.to_owned(),
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            on_node_network: false,
            active: true,
            node: String::new(),
            role: None,
            session_name: None,
            external_id: None,
        }
    }

    fn namespace() -> NamespaceFacts {
        NamespaceFacts { name: "ns".to_owned(), permitted: Permitted::Nothing }
    }

    fn query(interface_age: Option<Duration>, wait: Duration) -> Query {
        Query { origin: Origin::Address(IpAddr::from([10, 0, 0, 1])), interface_age, wait }
    }

    fn apply_pod(cluster: &Cluster, uid: &str) {
        cluster.change(|index| index.apply_pod(pod(uid), Instant::now()));
    }

    fn list(cluster: &Cluster, pods: Vec<PodFacts>, namespaces: Vec<NamespaceFacts>) {
        cluster.change(|index| {
            index.reset_pods(pods, Instant::now());
            index.reset_namespaces(namespaces);
        });
    }

    fn listed() -> Arc<Cluster> {
        let cluster = Cluster::new(Anchoring::Strict);
        list(&cluster, vec![], vec![namespace()]);
        Arc::new(cluster)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pod_ends_the_wait() {
        let (cluster, start) = (listed(), Instant::now());
        let later = Arc::clone(&cluster);
        let watch = tokio::spawn(async move {
            tokio::time::sleep(300 * MS).await;
            apply_pod(&later, "a");
        });
        let found = cluster.find(query(Some(50 * MS), 900 * MS)).await.unwrap();
        assert_eq!((found.pod.uid.as_str(), start.elapsed()), ("a", 300 * MS));
        assert!(found.seen_for < 50 * MS);
        watch.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_limited() {
        let (cluster, start) = (listed(), Instant::now());
        assert_eq!(cluster.find(query(None, Duration::ZERO)).await.err(), Some(LookupError::NotFound));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(cluster.find(query(None, 3600 * 1000 * MS)).await.err(), Some(LookupError::NotFound));
        assert_eq!(start.elapsed(), LOOKUP_WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_pod_is_not_found_at_a_new_interface() {
        let cluster = listed();
        apply_pod(&cluster, "old");
        tokio::time::advance(Duration::from_secs(60)).await;
        let young = query(Some(Duration::from_secs(1)), 900 * MS);
        assert_eq!(cluster.find(young.clone()).await.err(), Some(LookupError::NotFound));
        assert_eq!(cluster.find(query(None, 900 * MS)).await.unwrap().pod.uid.as_str(), "old");
        apply_pod(&cluster, "new");
        assert_eq!(cluster.find(young).await.unwrap().pod.uid.as_str(), "new");
        assert_eq!(cluster.find(query(None, 900 * MS)).await.err(), Some(LookupError::Ambiguous));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_is_awaited_but_not_the_first_list() {
        let cluster = Arc::new(Cluster::new(Anchoring::Strict));
        assert_eq!(cluster.find(query(None, 900 * MS)).await.err(), Some(LookupError::NotSynced));
        list(&cluster, vec![pod("a")], vec![]);
        let later = Arc::clone(&cluster);
        let watch = tokio::spawn(async move {
            tokio::time::sleep(100 * MS).await;
            later.change(|index| index.apply_namespace(namespace()));
        });
        assert!(cluster.find(query(None, 900 * MS)).await.unwrap().namespace.is_some());
        watch.await.unwrap();
    }
}

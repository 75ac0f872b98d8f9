//! Connection limits, per pod and in total. A pod without a connection always gets a slot: if all are taken, the pod
//! that holds most of them loses its idlest connection.

use super::{
    limits::{CONNECTIONS_MAX, CONNECTIONS_PER_POD_MAX, REFUSALS_MAX},
    peer::Holder,
    phase::Phase,
};
use prometheus_client::metrics::gauge::Gauge;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// All connection slots.
pub(crate) struct ConnectionSlots {
    table: Mutex<Table>,
    refusals: Arc<Semaphore>,
    gauge: Gauge,
}

/// The slots of each holder; no list is empty.
#[derive(Default)]
struct Table {
    held: usize,
    holders: HashMap<Holder, Vec<Arc<Entry>>>,
}

/// The state that a connection and the table share.
#[derive(Debug)]
struct Entry {
    phase: Phase,
    lost: Notify,
}

/// The slot of a connection; freed on drop.
pub(crate) struct Slot {
    slots: Arc<ConnectionSlots>,
    holder: Holder,
    entry: Arc<Entry>,
}

/// The reason why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The pod has reached its limit.
    Pod,
    /// All slots are taken, and the pod holds some of them.
    Total,
}

impl ConnectionSlots {
    /// Returns free slots; `gauge` follows the number of connections.
    pub(crate) fn new(gauge: Gauge) -> Self {
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { table: Mutex::default(), refusals, gauge }
    }

    /// Takes a slot for a connection of `holder`.
    ///
    /// # Errors
    /// The pod must first close another connection.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Result<Slot, Full> {
        let entry = Arc::new(Entry { phase: Phase::new(Instant::now()), lost: Notify::new() });
        self.table().take(holder, Arc::clone(&entry))?;
        self.gauge.inc();
        Ok(Slot { slots: Arc::clone(self), holder, entry })
    }

    /// Returns a permit to answer a connection without a slot; `None` if too many are being answered already.
    pub(crate) fn refusal_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds this lock, and an inexact count is better than no limits.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take(&mut self, holder: Holder, entry: Arc<Entry>) -> Result<(), Full> {
        let held = self.holders.get(&holder).map_or(0, Vec::len);
        if held >= CONNECTIONS_PER_POD_MAX {
            return Err(Full::Pod);
        }
        if self.held >= CONNECTIONS_MAX {
            if held > 0 {
                return Err(Full::Total);
            }
            self.evict();
        }
        self.holders.entry(holder).or_default().push(entry);
        self.held += 1;
        Ok(())
    }

    /// Evicts the idlest connection of the pod that holds most slots.
    fn evict(&mut self) {
        let largest = self.holders.iter().max_by_key(|(_, entries)| entries.len()).map(|(holder, _)| *holder);
        let Some(holder) = largest else { return };
        let idlest =
            self.holders.get(&holder).and_then(|entries| entries.iter().min_by_key(|entry| idleness(entry)).cloned());
        if let Some(entry) = idlest {
            entry.lost.notify_one();
            self.remove(holder, &entry);
        }
    }

    fn remove(&mut self, holder: Holder, entry: &Arc<Entry>) {
        let Some(entries) = self.holders.get_mut(&holder) else { return };
        if let Some(index) = entries.iter().position(|held| Arc::ptr_eq(held, entry)) {
            entries.swap_remove(index);
            self.held -= 1;
        }
        if entries.is_empty() {
            self.holders.remove(&holder);
        }
    }
}

/// Returns the sort key by which the idlest connection is the least: first idle ones by idle time, longest first, then
/// busy ones by age, oldest first.
fn idleness(entry: &Entry) -> (bool, Instant) {
    match entry.phase.resting_since() {
        Some(since) => (false, since),
        None => (true, entry.phase.began()),
    }
}

impl Slot {
    /// Returns the phase of the connection.
    pub(crate) fn phase(&self) -> &Phase {
        &self.entry.phase
    }

    /// Waits until the slot is lost to another pod.
    pub(crate) async fn lost(&self) {
        self.entry.lost.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Self { slots, holder, entry } = self;
        slots.table().remove(*holder, entry);
        slots.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::time::Duration;
    use tokio::time::advance;

    fn pod(n: usize) -> Holder {
        Holder::Address([10, 0, u8::try_from(n / 256).unwrap(), u8::try_from(n % 256).unwrap()].into())
    }

    fn slots() -> Arc<ConnectionSlots> {
        Arc::new(ConnectionSlots::new(Gauge::default()))
    }

    fn rest(slot: &Slot) {
        slot.phase().answered();
        slot.phase().flushed();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_64_slots_and_reuses_freed_ones() {
        let slots = slots();
        let mut taken: Vec<Slot> = (0..CONNECTIONS_PER_POD_MAX).map(|_| slots.take(pod(1)).unwrap()).collect();
        assert_eq!(slots.take(pod(1)).err(), Some(Full::Pod));
        assert!(slots.take(pod(2)).is_ok());
        taken.pop();
        assert!(slots.take(pod(1)).is_ok());
    }

    /// A pod without a connection takes the slot of the idlest connection of the pod that holds most.
    #[tokio::test(start_paused = true)]
    async fn new_pod_evicts_idlest_slot_of_largest_holder() {
        let slots = slots();
        let full = CONNECTIONS_MAX / CONNECTIONS_PER_POD_MAX;
        let mut taken: Vec<Vec<Slot>> = Vec::new();
        for n in 0..full {
            // Pod 3 holds most slots.
            let count = if n == 5 { CONNECTIONS_PER_POD_MAX - 2 } else { CONNECTIONS_PER_POD_MAX - 1 };
            let count = if n == 3 { CONNECTIONS_PER_POD_MAX } else { count };
            taken.push((0..count).map(|_| slots.take(pod(n)).unwrap()).collect());
        }
        let held: usize = taken.iter().map(Vec::len).sum();
        let others: Vec<Slot> = (held..CONNECTIONS_MAX).map(|n| slots.take(pod(10_000 + n)).unwrap()).collect();
        assert_eq!(slots.take(pod(5)).err(), Some(Full::Total), "it holds some");

        advance(Duration::from_secs(1)).await;
        rest(&taken[3][7]);
        advance(Duration::from_secs(1)).await;
        rest(&taken[3][2]);
        rest(&taken[4][2]);
        let newcomer = slots.take(pod(200)).unwrap();
        assert!(taken[3][7].lost().now_or_never().is_some(), "the longest at rest");
        assert!(taken[3][2].lost().now_or_never().is_none());
        assert!(newcomer.lost().now_or_never().is_none());
        drop((taken, others, newcomer));
        let table = slots.table();
        assert_eq!((table.held, table.holders.len()), (0, 0));
    }

    /// If all connections are busy, the oldest one is evicted.
    #[tokio::test(start_paused = true)]
    async fn oldest_busy_slot_is_evicted_when_none_is_idle() {
        let slots = slots();
        let mut taken = Vec::new();
        for n in 0..CONNECTIONS_MAX {
            taken.push(slots.take(pod(n)).unwrap());
            advance(Duration::from_millis(1)).await;
        }
        let more = slots.take(pod(9)).err();
        assert_eq!(more, Some(Full::Total));
        let _newcomer = slots.take(pod(60_000)).unwrap();
        let lost = taken.iter().filter(|slot| slot.lost().now_or_never().is_some()).count();
        assert_eq!(lost, 1);
        assert_eq!(slots.table().held, CONNECTIONS_MAX);
        // The evicted connection ends without freeing another slot.
        drop(taken);
        assert_eq!(slots.table().held, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_refusals_are_limited() {
        let slots = slots();
        let permits: Vec<_> = (0..REFUSALS_MAX).map(|_| slots.refusal_permit().unwrap()).collect();
        assert!(slots.refusal_permit().is_none());
        drop(permits);
        assert!(slots.refusal_permit().is_some());
    }
}

//! How many connections there may be, and whose. A pod that has none open is always let in; when all places are taken,
//! the pod that holds most of them loses its idlest.

use super::{
    limits::{CONNECTIONS_MAX, CONNECTIONS_PER_POD_MAX, TURNED_AWAY_MAX},
    peer::Holder,
    phase::Phase,
};
use prometheus_client::metrics::gauge::Gauge;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

/// All places.
pub(crate) struct Places {
    table: Mutex<Table>,
    /// The number of connections, those included that have lost their place and are about to end.
    open: watch::Sender<usize>,
    turned_away: Arc<Semaphore>,
    gauge: Gauge,
}

/// Who holds which. Never an empty list.
#[derive(Default)]
struct Table {
    held: usize,
    holders: HashMap<Holder, Vec<Arc<Seat>>>,
}

/// What a connection and the table share.
#[derive(Debug)]
struct Seat {
    phase: Phase,
    lost: Notify,
}

/// A connection's place; free again when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    holder: Holder,
    seat: Arc<Seat>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This pod holds as many as one may.
    OfThisPod,
    /// All are taken, and this pod holds some.
    Altogether,
}

impl Places {
    /// All free; `gauge` follows their number.
    pub(crate) fn new(gauge: Gauge) -> Self {
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        Self { table: Mutex::default(), open: watch::Sender::new(0), turned_away, gauge }
    }

    /// A place for a connection of `holder`.
    ///
    /// # Errors
    /// When this pod has to close another one first.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Result<Place, Full> {
        let seat = Arc::new(Seat { phase: Phase::new(Instant::now()), lost: Notify::new() });
        self.table().take(holder, Arc::clone(&seat))?;
        self.open.send_modify(|open| *open += 1);
        self.gauge.inc();
        Ok(Place { places: Arc::clone(self), holder, seat })
    }

    /// A turn at telling a connection that there is no place; `None`: too many are being told already.
    pub(crate) fn turn_away(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turned_away).try_acquire_owned().ok()
    }

    /// Waits until no connection is open.
    pub(crate) async fn empty(&self) {
        let mut open = self.open.subscribe();
        if open.wait_for(|open| *open == 0).await.is_err() {
            tracing::debug!("the count of connections ended before they did");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held, and a count that is off is better than none.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take(&mut self, holder: Holder, seat: Arc<Seat>) -> Result<(), Full> {
        let held = self.holders.get(&holder).map_or(0, Vec::len);
        if held >= CONNECTIONS_PER_POD_MAX {
            return Err(Full::OfThisPod);
        }
        if self.held >= CONNECTIONS_MAX {
            if held > 0 {
                return Err(Full::Altogether);
            }
            self.evict();
        }
        self.holders.entry(holder).or_default().push(seat);
        self.held += 1;
        Ok(())
    }

    /// Takes the idlest connection's place from the pod that holds most.
    fn evict(&mut self) {
        let largest = self.holders.iter().max_by_key(|(_, seats)| seats.len()).map(|(holder, _)| *holder);
        let Some(holder) = largest else { return };
        let idlest =
            self.holders.get(&holder).and_then(|seats| seats.iter().min_by_key(|seat| idleness(seat)).cloned());
        if let Some(seat) = idlest {
            seat.lost.notify_one();
            self.remove(holder, &seat);
        }
    }

    fn remove(&mut self, holder: Holder, seat: &Arc<Seat>) {
        let Some(seats) = self.holders.get_mut(&holder) else { return };
        if let Some(index) = seats.iter().position(|held| Arc::ptr_eq(held, seat)) {
            seats.swap_remove(index);
            self.held -= 1;
        }
        if seats.is_empty() {
            self.holders.remove(&holder);
        }
    }
}

/// The least is the idlest: first those at rest, the longest first; then those that are busy, the oldest first.
fn idleness(seat: &Seat) -> (bool, Instant) {
    match seat.phase.resting_since() {
        Some(since) => (false, since),
        None => (true, seat.phase.began()),
    }
}

impl Place {
    /// Where the connection stands.
    pub(crate) fn phase(&self) -> &Phase {
        &self.seat.phase
    }

    /// Waits until the place is lost to another pod.
    pub(crate) async fn lost(&self) {
        self.seat.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { places, holder, seat } = self;
        places.table().remove(*holder, seat);
        places.open.send_modify(|open| *open -= 1);
        places.gauge.dec();
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

    fn places() -> Arc<Places> {
        Arc::new(Places::new(Gauge::default()))
    }

    fn rest(place: &Place) {
        place.phase().answered();
        place.phase().flushed();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_64_and_gets_one_back_when_one_ends() {
        let places = places();
        let mut taken: Vec<Place> = (0..CONNECTIONS_PER_POD_MAX).map(|_| places.take(pod(1)).unwrap()).collect();
        assert_eq!(places.take(pod(1)).err(), Some(Full::OfThisPod));
        assert!(places.take(pod(2)).is_ok());
        taken.pop();
        assert!(places.take(pod(1)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_without_any_gets_the_idlest_of_the_largest_holder() {
        let places = places();
        let full = CONNECTIONS_MAX / CONNECTIONS_PER_POD_MAX;
        let mut taken: Vec<Vec<Place>> = Vec::new();
        for n in 0..full {
            // Pod 3 holds most: one place of pod 5 is pod 100's.
            let count = if n == 5 { CONNECTIONS_PER_POD_MAX - 2 } else { CONNECTIONS_PER_POD_MAX - 1 };
            let count = if n == 3 { CONNECTIONS_PER_POD_MAX } else { count };
            taken.push((0..count).map(|_| places.take(pod(n)).unwrap()).collect());
        }
        let held: usize = taken.iter().map(Vec::len).sum();
        let others: Vec<Place> = (held..CONNECTIONS_MAX).map(|n| places.take(pod(10_000 + n)).unwrap()).collect();
        assert_eq!(places.take(pod(5)).err(), Some(Full::Altogether), "it holds some");

        advance(Duration::from_secs(1)).await;
        rest(&taken[3][7]);
        advance(Duration::from_secs(1)).await;
        rest(&taken[3][2]);
        rest(&taken[4][2]);
        let newcomer = places.take(pod(200)).unwrap();
        assert!(taken[3][7].lost().now_or_never().is_some(), "the longest at rest");
        assert!(taken[3][2].lost().now_or_never().is_none());
        assert!(newcomer.lost().now_or_never().is_none());
        drop((taken, others, newcomer));
        let table = places.table();
        assert_eq!((table.held, table.holders.len()), (0, 0));
        drop(table);
        assert!(places.empty().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_go_too_when_none_rests_the_oldest_first() {
        let places = places();
        let mut taken = Vec::new();
        for n in 0..CONNECTIONS_MAX {
            taken.push(places.take(pod(n)).unwrap());
            advance(Duration::from_millis(1)).await;
        }
        let more = places.take(pod(9)).err();
        assert_eq!(more, Some(Full::Altogether));
        let _newcomer = places.take(pod(60_000)).unwrap();
        let lost = taken.iter().filter(|place| place.lost().now_or_never().is_some()).count();
        assert_eq!(lost, 1);
        assert_eq!(places.table().held, CONNECTIONS_MAX);
        // The one that lost its place leaves; nobody else's is freed by that.
        drop(taken);
        assert_eq!(places.table().held, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_told_that_they_are_too_many() {
        let places = places();
        let turns: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| places.turn_away().unwrap()).collect();
        assert!(places.turn_away().is_none());
        drop(turns);
        assert!(places.turn_away().is_some());
    }
}

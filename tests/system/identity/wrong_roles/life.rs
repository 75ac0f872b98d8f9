//! What happens to pods, and when Kubernetes hears of it: each thing later than it happens, in order for one pod and in
//! any order between pods.

use super::{
    ask::{self, AGENT_MARGIN},
    world::{Knowledge, NAMESPACES, News, Place, Pod, Stay, World},
};
use anyhow::Result;
use fastrand::Rng;
use std::{ops::RangeInclusive, rc::Rc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet, spawn_local},
    time::{Instant, sleep, sleep_until},
};

/// How long a pod runs before it is told to end, milliseconds: some end before Kubernetes knows where they are.
const LIFE_MS: RangeInclusive<u64> = 50..=900;
/// From then to its end.
const GRACE_MS: RangeInclusive<u64> = 0..=150;
/// How late Kubernetes hears of anything, milliseconds.
const DELAY_MS: RangeInclusive<u64> = 5..=300;
/// One in so many pods is asked for from its first moment on until it is served.
const WAITED_FOR: u8 = 32;
/// How long such a pod runs, milliseconds: longer than any question waits.
const WAITED_LIFE_MS: u64 = 950;
/// How late Kubernetes hears of it, milliseconds: when the question is there already.
const WAITED_DELAY_MS: RangeInclusive<u64> = 150..=300;

/// A pod in its slot, and the task that tells Kubernetes of it.
struct Resident {
    pod: Rc<Pod>,
    telling: JoinHandle<Result<()>>,
}

/// Two places, and the pods that come to them, one after another.
pub(super) async fn slot(world: Rc<World>, slot: u16, mut rng: Rng) -> Result<()> {
    let mut asking = JoinSet::new();
    let mut place = Place(2 * slot);
    let mut resident = move_into_slot(&world, &mut rng, None);
    while world.progress() < 1.0 {
        world.watch.begin_stay().await?;
        let stay = world.move_in(&resident.pod, place);
        live(&world, &stay, &mut rng, &mut asking).await;
        let moves = rng.u8(..8) == 0;
        if !moves {
            resident.pod.tell(soon(&mut rng), News::Terminating);
            sleep(Duration::from_millis(rng.u64(GRACE_MS))).await;
        }
        stay.end();
        if moves {
            // Its sandbox is made anew, with another address: the same pod behind a new interface.
            place = other(place);
            continue;
        }
        resident = follow(&world, &mut rng, resident);
        if rng.u8(..4) == 0 {
            place = other(place);
            sleep(Duration::from_millis(rng.u64(DELAY_MS))).await;
        }
    }
    leave(&mut rng, &resident.pod);
    resident.telling.await??;
    while let Some(asked) = asking.join_next().await {
        asked?;
    }
    Ok(())
}

/// What happens while a pod is at its place, until it leaves or is told to end.
async fn live(world: &Rc<World>, stay: &Rc<Stay>, rng: &mut Rng, asking: &mut JoinSet<()>) {
    let waited_for = rng.u8(..WAITED_FOR) == 0;
    let life = if waited_for { WAITED_LIFE_MS } else { rng.u64(LIFE_MS) };
    let delay = rng.u64(if waited_for { WAITED_DELAY_MS } else { DELAY_MS });
    stay.pod.tell(stay.born + Duration::from_millis(delay), News::At(Rc::clone(stay)));
    asking.spawn_local(ask::now_and_then(Rc::clone(world), Rc::clone(stay), rng.fork()));
    if waited_for {
        asking.spawn_local(ask::until_served(Rc::clone(world), Rc::clone(stay)));
    }
    sleep(Duration::from_millis(life)).await;
    if world.knowledge == Knowledge::InterfaceAge {
        // What the age of an interface cannot rule out: a pod of whom the server hears for the first time when its
        // place is another one's already, or so shortly before that the agent's margin covers it.
        world.watch.shows(stay).await;
        sleep(AGENT_MARGIN).await;
    }
}

/// The next pod of a slot.
fn follow(world: &Rc<World>, rng: &mut Rng, old: Resident) -> Resident {
    leave(rng, &old.pod);
    // As a StatefulSet does: Kubernetes hears of a namesake when the old one is gone.
    let namesake = rng.u8(..4) == 0;
    move_into_slot(world, rng, namesake.then_some(old))
}

fn move_into_slot(world: &Rc<World>, rng: &mut Rng, namesake: Option<Resident>) -> Resident {
    let (namespace, name) = match &namesake {
        Some(old) => (old.pod.namespace(), Some(old.pod.name())),
        None => (NAMESPACES[rng.usize(..NAMESPACES.len())].to_owned(), None),
    };
    let (pod, news) = world.new_pod(&namespace, name);
    let telling = spawn_local(tell(Rc::clone(world), Rc::clone(&pod), news, namesake));
    pod.tell(Instant::now(), News::Created);
    Resident { pod, telling }
}

/// A pod has ended.
fn leave(rng: &mut Rng, pod: &Pod) {
    if rng.bool() {
        pod.tell(soon(rng), News::Ended(if rng.bool() { "Succeeded" } else { "Failed" }));
    }
    pod.tell(soon(rng) + Duration::from_millis(rng.u64(DELAY_MS)), News::Deleted);
}

/// Tells Kubernetes what it shall hear of a pod, one after another.
async fn tell(
    world: Rc<World>,
    pod: Rc<Pod>,
    mut news: mpsc::UnboundedReceiver<(Instant, News)>,
    namesake: Option<Resident>,
) -> Result<()> {
    if let Some(old) = namesake {
        old.telling.await??;
    }
    while let Some((at, news)) = news.recv().await {
        sleep_until(at).await;
        let last = matches!(news, News::Deleted);
        world.publish(&pod, news)?;
        if last {
            break;
        }
    }
    Ok(())
}

/// When Kubernetes hears of what happens now.
fn soon(rng: &mut Rng) -> Instant {
    Instant::now() + Duration::from_millis(rng.u64(DELAY_MS))
}

fn other(place: Place) -> Place {
    Place(place.0 ^ 1)
}

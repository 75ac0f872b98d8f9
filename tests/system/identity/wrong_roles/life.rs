//! Events of pods, and the times when Kubernetes reports them: each later than it happens, in order for one pod and in
//! any order between pods.

use super::{
    requests::{self, AGENT_MARGIN},
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

/// Time a pod runs before it is asked to end, in milliseconds: some end before Kubernetes reports their place.
const LIFE_MS: RangeInclusive<u64> = 50..=900;
/// Time from then to its end.
const GRACE_MS: RangeInclusive<u64> = 0..=150;
/// Delay of Kubernetes' reports, in milliseconds.
const DELAY_MS: RangeInclusive<u64> = 5..=300;
/// One in this many pods sends a request from its first moment on until it is served.
const WAITED_FOR: u8 = 32;
/// Time such a pod runs, in milliseconds: longer than any request waits.
const WAITED_LIFE_MS: u64 = 950;
/// Delay of the report about such a pod, in milliseconds: the request is there already.
const WAITED_DELAY_MS: RangeInclusive<u64> = 150..=300;

/// A pod in its slot, and the task that reports it to Kubernetes.
struct Resident {
    pod: Rc<Pod>,
    reporting: JoinHandle<Result<()>>,
}

/// Runs the pods of two places, one after another.
pub(super) async fn slot(world: Rc<World>, slot: u16, mut rng: Rng) -> Result<()> {
    let mut requesting = JoinSet::new();
    let mut place = Place(2 * slot);
    let mut resident = move_into_slot(&world, &mut rng, None);
    while world.progress() < 1.0 {
        world.watch.begin_stay().await?;
        let stay = world.move_in(&resident.pod, place);
        live(&world, &stay, &mut rng, &mut requesting).await;
        let moves = rng.u8(..8) == 0;
        if !moves {
            resident.pod.report(soon(&mut rng), News::Terminating);
            sleep(Duration::from_millis(rng.u64(GRACE_MS))).await;
        }
        stay.end();
        if moves {
            // Its sandbox is made again, with another address: the same pod behind a new interface.
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
    resident.reporting.await??;
    while let Some(requested) = requesting.join_next().await {
        requested?;
    }
    Ok(())
}

/// Runs a pod at its place, until it leaves or is asked to end.
async fn live(world: &Rc<World>, stay: &Rc<Stay>, rng: &mut Rng, requesting: &mut JoinSet<()>) {
    let waited_for = rng.u8(..WAITED_FOR) == 0;
    let life = if waited_for { WAITED_LIFE_MS } else { rng.u64(LIFE_MS) };
    let delay = rng.u64(if waited_for { WAITED_DELAY_MS } else { DELAY_MS });
    stay.pod.report(stay.born + Duration::from_millis(delay), News::At(Rc::clone(stay)));
    requesting.spawn_local(requests::now_and_then(Rc::clone(world), Rc::clone(stay), rng.fork()));
    if waited_for {
        requesting.spawn_local(requests::until_served(Rc::clone(world), Rc::clone(stay)));
    }
    sleep(Duration::from_millis(life)).await;
    if world.knowledge == Knowledge::InterfaceAge {
        // The age of an interface cannot rule out that the server first sees a pod when its place belongs to another
        // one already, or so shortly before that the agent's margin covers it.
        world.watch.shows(stay).await;
        sleep(AGENT_MARGIN).await;
    }
}

/// Makes the next pod of a slot.
fn follow(world: &Rc<World>, rng: &mut Rng, old: Resident) -> Resident {
    leave(rng, &old.pod);
    // Like a StatefulSet: Kubernetes sees the new pod of the same name when the old one is gone.
    let namesake = rng.u8(..4) == 0;
    move_into_slot(world, rng, namesake.then_some(old))
}

fn move_into_slot(world: &Rc<World>, rng: &mut Rng, namesake: Option<Resident>) -> Resident {
    let (namespace, name) = match &namesake {
        Some(old) => (old.pod.namespace(), Some(old.pod.name())),
        None => (NAMESPACES[rng.usize(..NAMESPACES.len())].to_owned(), None),
    };
    let (pod, news) = world.new_pod(&namespace, name);
    let reporting = spawn_local(report(Rc::clone(world), Rc::clone(&pod), news, namesake));
    pod.report(Instant::now(), News::Created);
    Resident { pod, reporting }
}

/// Reports the end of a pod.
fn leave(rng: &mut Rng, pod: &Pod) {
    if rng.bool() {
        pod.report(soon(rng), News::Ended(if rng.bool() { "Succeeded" } else { "Failed" }));
    }
    pod.report(soon(rng) + Duration::from_millis(rng.u64(DELAY_MS)), News::Deleted);
}

/// Reports the events of a pod to Kubernetes, one after another.
async fn report(
    world: Rc<World>,
    pod: Rc<Pod>,
    mut news: mpsc::UnboundedReceiver<(Instant, News)>,
    namesake: Option<Resident>,
) -> Result<()> {
    if let Some(old) = namesake {
        old.reporting.await??;
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

/// Returns the time of Kubernetes' report about an event that happens now.
fn soon(rng: &mut Rng) -> Instant {
    Instant::now() + Duration::from_millis(rng.u64(DELAY_MS))
}

fn other(place: Place) -> Place {
    Place(place.0 ^ 1)
}

//! The requests: sent for a pod while it is at its place, with truthful evidence from its kernel, and judged by which
//! pod that was.

use super::{
    report::Outcome,
    world::{Knowledge, Place, Stay, World},
};
use fastrand::Rng;
use futures::future::join_all;
use kiam_common::proto::{Caller, GetPodRoleRequest, Role};
use std::{net::IpAddr, ops::RangeInclusive, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};
use tonic::Code;

/// Number of moments at which a pod sends requests.
const MOMENTS: usize = 2;
/// Pause between two of them, in milliseconds.
const BETWEEN_MS: RangeInclusive<u64> = 0..=400;
/// Requests at one moment.
const AT_ONCE: RangeInclusive<usize> = 1..=2;
/// Margin that an agent adds to the age of an interface, which here is reported without delay.
pub(super) const AGENT_MARGIN: Duration = Duration::from_millis(25);
/// Time an agent's request for an unknown pod waits, in milliseconds.
const WAIT_MS: u64 = 900;

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Request of kiam's agents: with evidence from the kernel.
    Agent,
    /// The same, for a pod that sends from another pod's address.
    Borrowing(Place),
    /// Request of agents of kiam v4: with the address alone, so that the answer can be wrong.
    Kiam,
}

impl Manner {
    fn any(rng: &mut Rng, knowledge: Knowledge, own: Place) -> Self {
        match rng.u8(..12) {
            0 => Self::Kiam,
            // Only the uid contradicts a borrowed address.
            1 if knowledge == Knowledge::Uid => Self::Borrowing(own.elsewhere(rng)),
            _ => Self::Agent,
        }
    }
}

/// Sends requests for a pod at a few moments of its stay.
pub(super) async fn now_and_then(world: Rc<World>, stay: Rc<Stay>, mut rng: Rng) {
    for _ in 0..MOMENTS {
        sleep(Duration::from_millis(rng.u64(BETWEEN_MS))).await;
        if stay.is_over() {
            return;
        }
        let questions = (0..rng.usize(AT_ONCE)).map(|_| {
            let manner = Manner::any(&mut rng, world.knowledge, stay.place);
            let from = if let Manner::Borrowing(place) = manner { place } else { stay.place };
            question(&world, &stay, manner, from.address(&mut rng))
        });
        join_all(questions.collect::<Vec<_>>()).await;
    }
}

async fn question(world: &World, stay: &Stay, manner: Manner, from: IpAddr) {
    let (shown, sight) = (world.watch.has_shown(stay), world.watch.sight());
    let outcome = request(world, stay, manner, from, 0).await;
    // The server had seen the pod at the time of the request, and could not have seen it leave before it answered.
    let known = shown && stay.is_shown() && sight.is_some() && sight == world.watch.sight();
    world.tally.borrow_mut().add(manner, outcome, known);
}

/// Sends a request for a pod from its first moment on, as agents do: the server answers as soon as it sees the pod. A
/// request that began before the report to Kubernetes, and ended without an answer, is sent once more, as clients do.
pub(super) async fn until_served(world: Rc<World>, stay: Rc<Stay>) {
    let sight = world.watch.sight();
    let send = || request(&world, &stay, Manner::Agent, stay.place.addresses().0.into(), WAIT_MS);
    let mut was_reported = stay.report().is_some();
    let mut outcome = send().await;
    if matches!(outcome, Outcome::Refused) && !was_reported && stay.report().is_some() {
        was_reported = true;
        outcome = send().await;
    }
    let since_report = stay.report().map(|report| report.at.elapsed());
    // Otherwise the next pod may have been served, or the server may have been blind.
    let counts = !stay.is_over() && sight.is_some() && sight == world.watch.sight();
    world.tally.borrow_mut().waited(outcome, since_report.filter(|_| counts), was_reported);
}

async fn request(world: &World, stay: &Stay, manner: Manner, from: IpAddr, wait_ms: u64) -> Outcome {
    let sent_at = Instant::now();
    let age = (stay.born.elapsed() + AGENT_MARGIN).as_millis();
    let caller = (manner != Manner::Kiam).then(|| Caller {
        interface_age_ms: u64::try_from(age).ok(),
        wait_ms,
        pod_uid: (world.knowledge == Knowledge::Uid).then(|| stay.pod.uid.clone()),
    });
    let answer = world.rpc.clone().get_pod_role(GetPodRoleRequest { ip: from.to_string(), caller }).await;
    match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            if is_right(world, stay, manner, sent_at, &answer) {
                return Outcome::Right;
            }
            let pod = &stay.pod;
            Outcome::Wrong(format!(
                "pod {} with {:?}, at {:?} for {age} ms, requested {:?} ms ago as {manner:?} from {from}, got {answer:?}",
                pod.uid,
                pod.role,
                stay.place,
                sent_at.elapsed().as_millis()
            ))
        }
        // The status of kiam for no pod or several pods, and the status for a uid at another pod's address.
        Err(status) if matches!(status.code(), Code::Unknown | Code::PermissionDenied) => Outcome::Refused,
        Err(status) => Outcome::Failed(status.to_string()),
    }
}

/// Returns whether the answer is about the pod that sent the request.
fn is_right(world: &World, stay: &Stay, manner: Manner, sent_at: Instant, answer: &Role) -> bool {
    match (manner, world.knowledge) {
        (Manner::Borrowing(_), _) => false,
        (Manner::Agent, Knowledge::Uid) => is_of(answer, stay),
        // For an address alone, the answer may be about any pod that has it during the request.
        (Manner::Agent, Knowledge::InterfaceAge) | (Manner::Kiam, _) => {
            world.was_there_since(stay.place, sent_at, |stay| is_of(answer, stay))
        }
    }
}

/// Returns whether an answer is about this very pod.
fn is_of(answer: &Role, stay: &Stay) -> bool {
    answer.name == stay.pod.role.as_deref().unwrap_or_default()
        && answer.seen.as_ref().is_none_or(|seen| seen.pod_uid == stay.pod.uid)
}

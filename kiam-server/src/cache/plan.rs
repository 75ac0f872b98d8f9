//! The plan: a state machine without tasks and without a clock. Its inputs are time, requests and results; its outputs
//! the next fetch, and the time at which something is due.

use super::{Answer, Published, backoff::Backoff};
use crate::core::{
    credentials::{Credentials, Identity, RefreshAhead},
    ids::PodUid,
    provider::{CredentialError, FailureClass},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// Most identities: twice as many as pods with a role in the largest cluster. Bounds the memory for annotations.
const IDENTITIES_MAX: usize = 100_000;
/// Most callers waiting for one identity; further ones get a retryable error.
const WAITERS_MAX: usize = 10_000;
/// Time that an identity is kept without a pod: a rollout replaces pods with others of the same identity.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Remaining lifetime below which a refresh precedes all other background fetches.
const EXPIRING_REMAINING_MAX: Duration = Duration::from_secs(600);

/// Priority of a fetch: the first variant is served first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lane {
    /// A caller waits.
    Live,
    /// The credentials are invalid, or about to expire.
    Expiring,
    /// A pod appeared.
    Prefetch,
    /// Half of the lifetime is over.
    Refresh,
}

/// Most concurrent fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Fetches with a waiting caller; a limit of their own, so that stalled prefetches can't block them.
    pub(super) live: usize,
    /// Background fetches.
    pub(super) background: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Queued(Lane, u64),
    Running(Lane),
}

struct Entry {
    state: State,
    /// Pods with this identity.
    pods: usize,
    waiters: Vec<oneshot::Sender<Answer>>,
    current: Option<Arc<Credentials>>,
    failure: Option<Failure>,
    /// Failures in a row.
    failures: u32,
    /// Time of the next processing; mirrored in [`Plan::due`].
    due: Option<Timestamp>,
}

struct Failure {
    error: CredentialError,
    /// Until then, requests get the error.
    until: Timestamp,
}

pub(super) struct Plan {
    entries: HashMap<Identity, Entry>,
    pods: HashMap<PodUid, Identity>,
    queue: BTreeMap<(Lane, u64), Identity>,
    due: BTreeSet<(Timestamp, Identity)>,
    running_live: usize,
    running_background: usize,
    /// Sequence number of the next entry in the queue.
    sequence: u64,
    limits: Limits,
    ahead: RefreshAhead,
    /// Random number from -1 to 1.
    jitter: fn() -> f64,
    published: Arc<Published>,
}

impl Plan {
    pub(super) fn new(limits: Limits, ahead: RefreshAhead, jitter: fn() -> f64, published: Arc<Published>) -> Self {
        Self {
            entries: HashMap::new(),
            pods: HashMap::new(),
            queue: BTreeMap::new(),
            due: BTreeSet::new(),
            running_live: 0,
            running_background: 0,
            sequence: 0,
            limits,
            ahead,
            jitter,
            published,
        }
    }

    /// Handles a request for credentials.
    pub(super) fn request(&mut self, identity: Identity, reply: oneshot::Sender<Answer>, now: Timestamp) {
        if let Some(credentials) = self.valid(&identity, now) {
            return send(reply, Ok(credentials));
        }
        let Some(entry) = self.entry(&identity) else {
            return send(reply, Err(overloaded("too many identities in use")));
        };
        if let Some(failure) = entry.failure.as_ref().filter(|failure| now < failure.until) {
            return send(reply, Err(failure.error.clone()));
        }
        entry.waiters.retain(|waiter| !waiter.is_closed());
        if entry.waiters.len() >= WAITERS_MAX {
            return send(reply, Err(overloaded("too many requests waiting for this role")));
        }
        entry.waiters.push(reply);
        self.enqueue(&identity, Lane::Live);
    }

    /// Records the identity that the pod will request, if any.
    pub(super) fn interest(&mut self, pod: PodUid, identity: Option<Identity>, now: Timestamp) {
        let before = match &identity {
            Some(identity) => self.pods.insert(pod, identity.clone()),
            None => self.pods.remove(&pod),
        };
        if before == identity {
            return;
        }
        if let Some(identity) = identity
            && let Some(entry) = self.entry(&identity)
        {
            entry.pods += 1;
            let needed = entry.current.is_none() && entry.failure.as_ref().is_none_or(|failure| failure.until <= now);
            if needed {
                self.enqueue(&identity, Lane::Prefetch);
            }
        }
        if let Some(before) = before
            && let Some(entry) = self.entries.get_mut(&before)
        {
            entry.pods = entry.pods.saturating_sub(1);
            if entry.pods == 0 {
                self.schedule(&before, after(now, FORGET_AFTER));
            }
        }
    }

    /// Returns the next identity to fetch, if the limits allow. [`Self::finish`] must follow.
    pub(super) fn next(&mut self) -> Option<Identity> {
        let live = self.first(Lane::Live).filter(|_| self.running_live < self.limits.live);
        let background = || self.first(Lane::Expiring).filter(|_| self.running_background < self.limits.background);
        let key = live.or_else(background)?;
        let identity = self.queue.remove(&key)?;
        match key.0 {
            Lane::Live => self.running_live += 1,
            Lane::Expiring | Lane::Prefetch | Lane::Refresh => self.running_background += 1,
        }
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.state = State::Running(key.0);
        }
        Some(identity)
    }

    /// Returns the first entry of the queue from this lane on; for the live lane, only live ones.
    fn first(&self, from: Lane) -> Option<(Lane, u64)> {
        let (&key, _) = self.queue.range((from, 0)..).next()?;
        (from != Lane::Live || key.0 == Lane::Live).then_some(key)
    }

    /// Handles the result of a fetch.
    pub(super) fn finish(&mut self, identity: &Identity, result: Result<Credentials, CredentialError>, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(identity) else { return };
        match std::mem::replace(&mut entry.state, State::Idle) {
            State::Running(Lane::Live) => self.running_live -= 1,
            State::Running(_) => self.running_background -= 1,
            State::Idle | State::Queued(..) => {}
        }
        let waiters = std::mem::take(&mut entry.waiters);
        let (answer, due) = match result.and_then(|credentials| still_good(credentials, now)) {
            Ok(credentials) => self.keep(identity, credentials),
            Err(error) => self.fail(identity, error, now),
        };
        for waiter in waiters {
            send(waiter, answer.clone());
        }
        let wanted = self.entries.get(identity).is_some_and(|entry| entry.pods > 0);
        let due = if wanted { due } else { due.min(after(now, FORGET_AFTER)) };
        self.schedule(identity, due);
    }

    fn keep(&mut self, identity: &Identity, credentials: Credentials) -> (Answer, Timestamp) {
        let due = credentials.refresh_at(self.ahead, (self.jitter)());
        let credentials = Arc::new(credentials);
        if let Some(entry) = self.entries.get_mut(identity) {
            entry.current = Some(Arc::clone(&credentials));
            entry.failure = None;
            entry.failures = 0;
        }
        self.published.insert(identity.clone(), Arc::clone(&credentials));
        (Ok(credentials), due)
    }

    fn fail(&mut self, identity: &Identity, error: CredentialError, now: Timestamp) -> (Answer, Timestamp) {
        let jitter = (self.jitter)();
        let Some(entry) = self.entries.get_mut(identity) else { return (Err(error), now) };
        entry.failures = entry.failures.saturating_add(1);
        let backoff = Backoff::after(error.class, entry.failures, jitter);
        entry.failure = Some(Failure { error: error.clone(), until: after(now, backoff.answer) });
        // Callers wait only while there are no valid credentials, so they get the error.
        (Err(error), after(now, backoff.retry))
    }

    /// Returns the valid credentials of an identity, and drops expired ones.
    fn valid(&mut self, identity: &Identity, now: Timestamp) -> Option<Arc<Credentials>> {
        let entry = self.entries.get_mut(identity)?;
        if entry.current.as_ref().is_some_and(|current| !current.is_valid_at(now)) {
            entry.current = None;
            self.published.remove(identity);
        }
        entry.current.clone()
    }

    /// Processes every identity that is due.
    pub(super) fn process_due(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, identity)) = self.due.pop_first()
        {
            self.process(&identity, now);
        }
    }

    fn process(&mut self, identity: &Identity, now: Timestamp) {
        let remaining = self.valid(identity, now).map(|current| current.remaining_at(now)).unwrap_or_default();
        let Some(entry) = self.entries.get_mut(identity) else { return };
        entry.due = None;
        if entry.pods == 0 {
            if entry.state == State::Idle && entry.waiters.is_empty() {
                self.entries.remove(identity);
                self.published.remove(identity);
            }
        } else {
            self.enqueue(identity, if remaining < EXPIRING_REMAINING_MAX { Lane::Expiring } else { Lane::Refresh });
        }
    }

    /// Returns the time at which the next identity is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns the number of identities with credentials.
    pub(super) fn size(&self) -> usize {
        self.published.len()
    }

    fn entry(&mut self, identity: &Identity) -> Option<&mut Entry> {
        if self.entries.len() >= IDENTITIES_MAX && !self.entries.contains_key(identity) {
            return None;
        }
        Some(self.entries.entry(identity.clone()).or_insert_with(Entry::new))
    }

    /// Adds an identity to the queue, or raises its priority; does nothing if it is being fetched.
    fn enqueue(&mut self, identity: &Identity, lane: Lane) {
        let Some(entry) = self.entries.get_mut(identity) else { return };
        match entry.state {
            State::Running(_) => return,
            State::Queued(queued, _) if queued <= lane => return,
            State::Queued(queued, sequence) => {
                self.queue.remove(&(queued, sequence));
            }
            State::Idle => {}
        }
        self.sequence += 1;
        entry.state = State::Queued(lane, self.sequence);
        self.queue.insert((lane, self.sequence), identity.clone());
    }

    fn schedule(&mut self, identity: &Identity, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(identity) else { return };
        if let Some(before) = entry.due.replace(at) {
            self.due.remove(&(before, identity.clone()));
        }
        self.due.insert((at, identity.clone()));
    }
}

impl Entry {
    const fn new() -> Self {
        Self { state: State::Idle, pods: 0, waiters: Vec::new(), current: None, failure: None, failures: 0, due: None }
    }
}

/// Refuses credentials that have expired on arrival: the clock of this machine or of STS is wrong.
fn still_good(credentials: Credentials, now: Timestamp) -> Result<Credentials, CredentialError> {
    if credentials.is_valid_at(now) {
        return Ok(credentials);
    }
    Err(CredentialError {
        class: FailureClass::Other,
        message: format!("STS returned credentials that expired at {}: check the local clock", credentials.expires),
    })
}

fn overloaded(message: &str) -> CredentialError {
    CredentialError { class: FailureClass::Throttled, message: message.to_owned() }
}

fn send(waiter: oneshot::Sender<Answer>, answer: Answer) {
    // The caller may be gone; the fetch served the others, too.
    drop(waiter.send(answer));
}

fn after(now: Timestamp, pause: Duration) -> Timestamp {
    SignedDuration::try_from(pause).ok().and_then(|pause| now.checked_add(pause).ok()).unwrap_or(Timestamp::MAX)
}

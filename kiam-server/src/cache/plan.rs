//! The plan: a state machine without tasks and without a clock. Time, wishes and results come in; what to fetch next,
//! and when to look again, comes out.

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

/// Most identities: twice what the largest cluster has pods that need one. Bounds what annotations can make us hold.
const IDENTITIES_MAX: usize = 100_000;
/// Most who wait for one identity; more are told to come again.
const WAITERS_MAX: usize = 10_000;
/// An identity that no pod wants any more is kept for this long: a rollout replaces pods by others of the same.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// With less life than this left, a refresh goes before everything that nobody waits for.
const EXPIRING_REMAINING_MAX: Duration = Duration::from_secs(600);

/// Who goes first. The order of the variants is the order of the queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lane {
    /// Somebody waits.
    Live,
    /// Nothing valid, or not for long.
    Expiring,
    /// A pod appeared.
    Prefetch,
    /// Half of the life is over.
    Refresh,
}

/// How many fetches may run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// That somebody waits for: they have places of their own, so that a stalled prefetch can't block them.
    pub(super) live: usize,
    /// All others.
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
    /// Pods that want it.
    pods: usize,
    waiters: Vec<oneshot::Sender<Answer>>,
    current: Option<Arc<Credentials>>,
    failure: Option<Failure>,
    /// Failures in a row.
    failures: u32,
    /// When to look at it next; mirrored in [`Plan::due`].
    due: Option<Timestamp>,
}

struct Failure {
    error: CredentialError,
    /// Until then the error is the answer.
    until: Timestamp,
}

pub(super) struct Plan {
    entries: HashMap<Identity, Entry>,
    pods: HashMap<PodUid, Identity>,
    queue: BTreeMap<(Lane, u64), Identity>,
    due: BTreeSet<(Timestamp, Identity)>,
    running_live: usize,
    running_background: usize,
    /// Of the next in the queue.
    sequence: u64,
    limits: Limits,
    ahead: RefreshAhead,
    /// From -1 to 1.
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

    /// Somebody waits for credentials.
    pub(super) fn ask(&mut self, identity: Identity, reply: oneshot::Sender<Answer>, now: Timestamp) {
        if let Some(credentials) = self.valid(&identity, now) {
            return tell(reply, Ok(credentials));
        }
        let Some(entry) = self.entry(&identity) else {
            return tell(reply, Err(overloaded("too many identities are in use")));
        };
        if let Some(failure) = entry.failure.as_ref().filter(|failure| now < failure.until) {
            return tell(reply, Err(failure.error.clone()));
        }
        entry.waiters.retain(|waiter| !waiter.is_closed());
        if entry.waiters.len() >= WAITERS_MAX {
            return tell(reply, Err(overloaded("too many wait for this role")));
        }
        entry.waiters.push(reply);
        self.enqueue(&identity, Lane::Live);
    }

    /// The pod will ask for this identity, or for none.
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
                self.look_again(&before, after(now, FORGET_AFTER));
            }
        }
    }

    /// What to fetch next, if there is a place for it. [`Self::finish`] must follow.
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

    /// The first in the queue, from this lane on; only live ones for the live lane.
    fn first(&self, from: Lane) -> Option<(Lane, u64)> {
        let (&key, _) = self.queue.range((from, 0)..).next()?;
        (from != Lane::Live || key.0 == Lane::Live).then_some(key)
    }

    /// A fetch ended.
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
            tell(waiter, answer.clone());
        }
        let wanted = self.entries.get(identity).is_some_and(|entry| entry.pods > 0);
        let due = if wanted { due } else { due.min(after(now, FORGET_AFTER)) };
        self.look_again(identity, due);
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
        // Whoever waits does so because nothing is valid.
        (Err(error), after(now, backoff.retry))
    }

    /// What it has, unless that has ended: then it has nothing any more.
    fn valid(&mut self, identity: &Identity, now: Timestamp) -> Option<Arc<Credentials>> {
        let entry = self.entries.get_mut(identity)?;
        if entry.current.as_ref().is_some_and(|current| !current.is_valid_at(now)) {
            entry.current = None;
            self.published.remove(identity);
        }
        entry.current.clone()
    }

    /// Looks at all whose time has come.
    pub(super) fn look(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, identity)) = self.due.pop_first()
        {
            self.look_at(&identity, now);
        }
    }

    fn look_at(&mut self, identity: &Identity, now: Timestamp) {
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

    /// When something is to be looked at next.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Identities with credentials.
    pub(super) fn size(&self) -> usize {
        self.published.len()
    }

    fn entry(&mut self, identity: &Identity) -> Option<&mut Entry> {
        if self.entries.len() >= IDENTITIES_MAX && !self.entries.contains_key(identity) {
            return None;
        }
        Some(self.entries.entry(identity.clone()).or_insert_with(Entry::new))
    }

    /// Puts it into the queue, or forward in it; what runs already is left alone.
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

    fn look_again(&mut self, identity: &Identity, at: Timestamp) {
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

/// Credentials that have ended on arrival are a wrong clock, ours or theirs.
fn still_good(credentials: Credentials, now: Timestamp) -> Result<Credentials, CredentialError> {
    if credentials.is_valid_at(now) {
        return Ok(credentials);
    }
    Err(CredentialError {
        class: FailureClass::Other,
        message: format!("STS gave credentials that ended at {}: check this machine's clock", credentials.expires),
    })
}

fn overloaded(message: &str) -> CredentialError {
    CredentialError { class: FailureClass::Throttled, message: message.to_owned() }
}

fn tell(waiter: oneshot::Sender<Answer>, answer: Answer) {
    // Whoever asked may have gone: their fetch is everybody's.
    drop(waiter.send(answer));
}

fn after(now: Timestamp, pause: Duration) -> Timestamp {
    SignedDuration::try_from(pause).ok().and_then(|pause| now.checked_add(pause).ok()).unwrap_or(Timestamp::MAX)
}

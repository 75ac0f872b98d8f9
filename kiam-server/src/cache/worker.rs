//! The worker: runs the fetches of the plan and wakes it when something is due.

use super::{
    Cache, CacheMetrics, Message, Published,
    plan::{Limits, Plan},
};
use crate::core::{
    credentials::{Credentials, Identity, RefreshAhead},
    provider::{Clock, CredentialError, CredentialProvider, FailureClass},
};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

/// Longest sleep: the system clock can be set while the worker sleeps on the monotonic one.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// Settings of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    /// Concurrent background fetches (`--fetchers`); as many more may run for waiting callers.
    pub(crate) fetchers: usize,
    /// Length of the worker's queue (`--prefetch-buffer-size`); senders wait while it is full.
    pub(crate) buffer: usize,
    pub(crate) ahead: RefreshAhead,
}

struct Worker<P> {
    plan: Plan,
    provider: Arc<P>,
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
    inbox: mpsc::Receiver<Message>,
    fetches: JoinSet<Result<Credentials, CredentialError>>,
    /// The identity that each task fetches; kept here for tasks that panic.
    fetched: HashMap<Id, Identity>,
}

/// Returns a handle of the cache, and its worker: the future ends when the last handle is dropped.
pub(crate) fn worker(
    provider: Arc<impl CredentialProvider>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    metrics: CacheMetrics,
) -> (Cache, impl Future<Output = ()> + Send) {
    let published = Arc::new(Published::new());
    let (messages, inbox) = mpsc::channel(settings.buffer.max(1));
    let limits = Limits { live: settings.fetchers.max(1), background: settings.fetchers.max(1) };
    let worker = Worker {
        plan: Plan::new(limits, settings.ahead, jitter, Arc::clone(&published)),
        provider,
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        inbox,
        fetches: JoinSet::new(),
        fetched: HashMap::new(),
    };
    (Cache { published, messages, clock, metrics }, worker.run())
}

impl<P: CredentialProvider> Worker<P> {
    async fn run(mut self) {
        loop {
            self.start_fetches();
            self.metrics.size.set(i64::try_from(self.plan.size()).unwrap_or(i64::MAX));
            let wake = self.wake();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(done) = self.fetches.join_next_with_id() => self.finish(done),
                () = tokio::time::sleep_until(wake) => self.plan.process_due(self.clock.now()),
            }
        }
    }

    fn wake(&self) -> Instant {
        let sleep = self
            .plan
            .next_due()
            .map_or(SLEEP_MAX, |at| Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO));
        Instant::now() + sleep.min(SLEEP_MAX)
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Request { identity, reply } => self.plan.request(identity, reply, now),
            Message::Interest { pod, identity } => self.plan.interest(pod, identity, now),
        }
    }

    fn start_fetches(&mut self) {
        while let Some(identity) = self.plan.next() {
            let (provider, metrics, wanted) = (Arc::clone(&self.provider), self.metrics.clone(), identity.clone());
            let task = self.fetches.spawn(async move {
                metrics.calls.inc();
                let started = Instant::now();
                let result = provider.assume(&wanted).await;
                metrics.timing.observe(started.elapsed().as_secs_f64());
                metrics.calls.dec();
                result
            });
            self.fetched.insert(task.id(), identity);
        }
    }

    fn finish(&mut self, done: Result<(Id, Result<Credentials, CredentialError>), JoinError>) {
        let (id, result) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(panicked(&error))),
        };
        let Some(identity) = self.fetched.remove(&id) else { return };
        match &result {
            Ok(credentials) => tracing::info!(
                role = %identity.role, session = identity.session.as_str(),
                access_key_id = credentials.access_key_id, expires = %credentials.expires,
                "credentials fetched"
            ),
            Err(error) => {
                self.metrics.errors.inc();
                tracing::warn!(
                    role = %identity.role, session = identity.session.as_str(), class = ?error.class, %error,
                    "cannot fetch credentials"
                );
            }
        }
        self.plan.finish(&identity, result, self.clock.now());
    }
}

fn panicked(error: &JoinError) -> CredentialError {
    CredentialError { class: FailureClass::Other, message: format!("the fetch failed: {error}") }
}

fn jitter() -> f64 {
    fastrand::f64() * 2.0 - 1.0
}

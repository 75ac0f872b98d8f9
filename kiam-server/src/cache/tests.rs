//! The cache with a scripted STS, in virtual time.

use super::*;
use crate::core::{credentials::RefreshAhead, ids::RoleArn, provider::CredentialProvider, session::SessionName};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use kiam_common::secret::Secret;
use prometheus_client::registry::Registry;
use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A system clock that moves with tokio's paused one.
struct TestClock {
    start: Instant,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.start.elapsed()).unwrap()
    }
}

/// An STS that responds after a delay with the next scripted failure of the role, else with credentials for an hour.
struct ScriptedSts {
    clock: Arc<TestClock>,
    latency: Duration,
    script: Mutex<HashMap<String, VecDeque<FailureClass>>>,
    calls: Mutex<Vec<(Duration, String)>>,
    running: AtomicUsize,
    peak: AtomicUsize,
}

impl ScriptedSts {
    fn calls(&self) -> Vec<(Duration, String)> {
        self.calls.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn fail(&self, role: &str, classes: &[FailureClass]) {
        self.script.lock().unwrap().insert(role.to_owned(), classes.iter().copied().collect());
    }
}

impl CredentialProvider for ScriptedSts {
    fn assume<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Credentials, CredentialError>> {
        Box::pin(async move {
            let role = identity.role.name().to_owned();
            self.calls.lock().unwrap().push((self.clock.start.elapsed(), role.clone()));
            self.peak.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(self.latency).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            assert_ne!(role, "panics", "scripted");
            let failure = self.script.lock().unwrap().get_mut(&role).and_then(VecDeque::pop_front);
            match failure {
                Some(class) => Err(CredentialError { class, message: format!("{class:?}") }),
                None => Ok(of_an_hour(self.clock.now())),
            }
        })
    }
}

fn of_an_hour(issued: Timestamp) -> Credentials {
    Credentials {
        access_key_id: format!("ASIA{}", issued.as_second()),
        secret_access_key: Secret::new("s".to_owned()),
        session_token: Secret::new("t".to_owned()),
        issued,
        expires: issued + SignedDuration::from_hours(1),
    }
}

fn identity(role: &str) -> Identity {
    Identity {
        role: RoleArn::parse(&format!("arn:aws:iam::123456789012:role/{role}")).unwrap(),
        session: SessionName::parse("kiam").unwrap(),
        external_id: None,
    }
}

fn pod(uid: &str) -> PodUid {
    PodUid::parse(uid).unwrap()
}

fn start(latency: Duration, fetchers: usize) -> (Cache, Arc<ScriptedSts>) {
    let clock = Arc::new(TestClock { start: Instant::now() });
    let sts = Arc::new(ScriptedSts {
        clock: Arc::clone(&clock),
        latency,
        script: Mutex::default(),
        calls: Mutex::default(),
        running: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
    });
    let settings = Settings { fetchers, buffer: 1000, ahead: RefreshAhead::HalfLife };
    let metrics = CacheMetrics::register(&mut Registry::default());
    let (cache, run) = worker(Arc::clone(&sts), clock, settings, metrics);
    tokio::spawn(run);
    (cache, sts)
}

async fn key(cache: &Cache, role: &str) -> Result<String, FailureClass> {
    let answer = cache.credentials(&identity(role)).await;
    answer.map(|credentials| credentials.access_key_id.clone()).map_err(|error| error.class)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_make_one_call() {
    let (cache, sts) = start(SECOND, 8);
    let requests: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { key(&cache, "red").await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), Ok("ASIA1".to_owned()));
    }
    assert_eq!(key(&cache, "red").await, Ok("ASIA1".to_owned()));
    assert_eq!(sts.count(), 1);
    assert_eq!((cache.metrics.misses.get(), cache.metrics.hits.get()), (10_000, 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_does_not_cancel_others() {
    let (cache, sts) = start(SECOND, 8);
    let first = {
        let cache = cache.clone();
        tokio::spawn(async move { key(&cache, "red").await })
    };
    sleep(Duration::from_millis(5)).await;
    let second = {
        let cache = cache.clone();
        tokio::spawn(async move { key(&cache, "red").await })
    };
    sleep(Duration::from_millis(5)).await;
    first.abort();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(sts.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn identities_differ_in_every_part() {
    let (cache, sts) = start(SECOND, 8);
    let mut other_id = identity("red");
    other_id.external_id = Some(crate::core::ids::ExternalId::parse("id").unwrap());
    let mut other_session = identity("red");
    other_session.session = SessionName::parse("other").unwrap();
    for identity in [identity("red"), other_id, other_session, identity("blue")] {
        cache.credentials(&identity).await.unwrap();
    }
    assert_eq!(sts.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_prefetched_refreshed_and_forgotten() {
    let (cache, sts) = start(SECOND, 8);
    cache.interest(pod("a"), Some(identity("red"))).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(sts.count(), 1, "before any request");
    for _ in 0..8 * 60 {
        sleep(MINUTE).await;
        let credentials = cache.credentials(&identity("red")).await.unwrap();
        let remaining = credentials.remaining_at(cache.clock.now());
        assert!(remaining >= 26 * MINUTE, "{remaining:?}");
    }
    let calls = sts.calls();
    for pair in calls.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!((27 * MINUTE..=33 * MINUTE + 2 * SECOND).contains(&apart), "{apart:?}");
    }
    assert_eq!(cache.metrics.misses.get(), 0);
    cache.interest(pod("a"), None).await.unwrap();
    sleep(2 * MINUTE).await;
    assert!(cache.published.is_empty());
    let count = sts.count();
    sleep(120 * MINUTE).await;
    assert_eq!(sts.count(), count, "no pod wants it");
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_kept_until_its_last_pod_goes() {
    let (cache, _) = start(SECOND, 8);
    for name in ["a", "b"] {
        cache.interest(pod(name), Some(identity("red"))).await.unwrap();
    }
    sleep(2 * SECOND).await;
    cache.interest(pod("a"), None).await.unwrap();
    sleep(5 * MINUTE).await;
    assert_eq!(cache.published.len(), 1);
    cache.interest(pod("b"), Some(identity("blue"))).await.unwrap();
    sleep(5 * MINUTE).await;
    assert!(cache.published.get(&identity("red")).is_none());
    assert!(cache.published.get(&identity("blue")).is_some());
}

#[tokio::test(start_paused = true)]
async fn credentials_are_served_until_they_expire() {
    let (cache, sts) = start(SECOND, 8);
    cache.interest(pod("a"), Some(identity("red"))).await.unwrap();
    sleep(2 * SECOND).await;
    sts.fail("red", &[FailureClass::Transient; 100_000]);
    let (issued, mut served) = (cache.clock.now(), 0);
    for _ in 0..90 * 60 {
        sleep(SECOND).await;
        let now = cache.clock.now();
        if let Ok(credentials) = cache.credentials(&identity("red")).await {
            assert!(credentials.is_valid_at(cache.clock.now()) && now.duration_since(issued).as_secs() < 3600);
            served += 1;
        }
    }
    assert!(served > 3580, "{served}");
    assert!(cache.published.is_empty());
    sts.fail("red", &[]);
    sleep(MINUTE).await;
    assert!(key(&cache, "red").await.is_ok());
}

/// Callers that wait get the result of the fetch; a request while the old credentials are valid gets those, even if the
/// refresh fails.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_old_credentials() {
    let published = Arc::new(Published::new());
    let limits = plan::Limits { live: 1, background: 1 };
    let mut plan = plan::Plan::new(limits, RefreshAhead::HalfLife, || 0.0, Arc::clone(&published));
    let (start, red) = (Timestamp::UNIX_EPOCH, identity("red"));
    plan.interest(pod("a"), Some(red.clone()), start);
    assert_eq!(plan.next(), Some(red.clone()));
    plan.finish(&red, Ok(of_an_hour(start)), start);
    let half = start + SignedDuration::from_mins(30);
    assert_eq!(plan.next_due(), Some(half));
    plan.process_due(half);
    assert_eq!(plan.next(), Some(red.clone()));
    let error = CredentialError { class: FailureClass::Transient, message: String::new() };
    plan.finish(&red, Err(error), half);
    let (reply, mut answer) = oneshot::channel();
    plan.request(red.clone(), reply, half);
    assert!(answer.try_recv().unwrap().is_ok());
    assert!(published.contains_key(&red));
}

#[tokio::test(start_paused = true)]
async fn the_backoff_depends_on_the_class() {
    for (class, least, most) in [
        (FailureClass::AccessDenied, 30, 60),
        (FailureClass::Other, 30, 60),
        (FailureClass::Throttled, 1, 3),
        (FailureClass::Transient, 0, 2),
    ] {
        let (cache, sts) = start(Duration::ZERO, 8);
        sts.fail("red", &[class]);
        assert_eq!(key(&cache, "red").await, Err(class));
        let began = Instant::now();
        while key(&cache, "red").await.is_err() {
            assert_eq!(sts.count(), 1, "{class:?}: the error is returned");
            sleep(Duration::from_millis(100)).await;
        }
        let paused = began.elapsed().as_secs();
        assert!((least..=most).contains(&paused), "{class:?}: {paused} s");
        assert_eq!(sts.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_of_a_refused_role_back_off() {
    let (cache, sts) = start(Duration::ZERO, 8);
    sts.fail("red", &[FailureClass::AccessDenied; 10_000]);
    cache.interest(pod("a"), Some(identity("red"))).await.unwrap();
    sleep(24 * 60 * MINUTE).await;
    assert!((90..160).contains(&sts.count()), "{}", sts.count());
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_precede_prefetches() {
    let (cache, sts) = start(10 * SECOND, 2);
    for number in 0..50 {
        cache.interest(pod(&format!("p{number}")), Some(identity(&format!("r{number}")))).await.unwrap();
    }
    sleep(SECOND).await;
    let began = Instant::now();
    key(&cache, "r49").await.unwrap();
    assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
    assert!(sts.peak.load(Ordering::SeqCst) <= 4);
    sleep(60 * 10 * SECOND).await;
    assert_eq!(sts.count(), 50, "each once");
}

#[tokio::test(start_paused = true)]
async fn two_thousand_identities_are_refreshed_in_time() {
    let (cache, sts) = start(Duration::from_millis(200), 8);
    for number in 0..2000 {
        cache.interest(pod(&format!("p{number}")), Some(identity(&format!("r{number}")))).await.unwrap();
    }
    sleep(40 * MINUTE).await;
    assert_eq!(sts.count(), 4000);
    assert_eq!(cache.published.len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_an_error() {
    let (cache, _) = start(Duration::ZERO, 1);
    assert_eq!(key(&cache, "panics").await, Err(FailureClass::Other));
    assert!(key(&cache, "red").await.is_ok(), "the panic freed its slot");
}

#[tokio::test(start_paused = true)]
async fn an_identity_without_a_pod_is_forgotten() {
    let (cache, _) = start(SECOND, 8);
    key(&cache, "red").await.unwrap();
    assert_eq!(cache.published.len(), 1);
    sleep(2 * MINUTE).await;
    assert!(cache.published.is_empty(), "no pod wanted it");
}

//! Events on pods, shown by `kubectl describe pod`. Reasons and texts are kiam's (kiam v4.2, pkg/server).

use crate::core::{
    ids::PodUid,
    notice::{Notice, NoticeSink},
    pod::PodFacts,
    text::{cut, short_digest},
};
use k8s_openapi::api::core::v1::ObjectReference;
use kiam_common::telemetry::chain;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use prometheus_client::metrics::counter::Counter;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Most Events that wait to be written; bounds memory if a pod sends requests in a loop.
const QUEUE_LEN_MAX: usize = 256;
/// Time during which the same notice of a pod is not repeated; Kubernetes counts repetitions in one Event.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Most different notices of one pod in that time: a pod chooses the roles that it requests.
const NOTICES_PER_POD_MAX: usize = 5;
/// Most pods with remembered notices.
const PODS_REMEMBERED_MAX: usize = 10_000;
/// Time limit of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two writes: at most 20 a second, to spare the API server.
const WRITE_INTERVAL: Duration = Duration::from_millis(50);
/// Longest text of an Event, bytes (events.k8s.io/v1: `note`, 1 kB).
const NOTE_LEN_MAX: usize = 1024;
/// Reporter of the Events, as in kiam.
const REPORTER: &str = "kiam.server";

/// Writes notices in the background.
pub(crate) struct EventRecorder {
    queue: mpsc::Sender<(Arc<PodFacts>, Notice)>,
    /// Hashes and times of recent notices, by pod.
    recent: Mutex<HashMap<PodUid, Vec<(u64, Instant)>>>,
    hasher: RandomState,
    /// Notices dropped because the queue was full.
    dropped: Counter,
}

impl EventRecorder {
    /// Returns the recorder, and the task that writes, which ends with the recorder.
    pub(crate) fn new(client: Client, dropped: Counter) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN_MAX);
        (
            Arc::new(Self { queue, recent: Mutex::default(), hasher: RandomState::new(), dropped }),
            write_all(client, waiting),
        )
    }

    /// Returns `true` if the notice should be published now, and remembers it.
    fn is_news(&self, pod: &PodUid, notice: &Notice, now: Instant) -> bool {
        let notice = self.hasher.hash_one(notice);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= PODS_REMEMBERED_MAX {
            recent.retain(|_, notices| notices.iter().any(|(_, at)| now.duration_since(*at) < REPEAT_INTERVAL));
        }
        if recent.len() >= PODS_REMEMBERED_MAX && !recent.contains_key(pod) {
            return false;
        }
        let notices = recent.entry(pod.clone()).or_default();
        notices.retain(|(_, at)| now.duration_since(*at) < REPEAT_INTERVAL);
        if notices.len() >= NOTICES_PER_POD_MAX || notices.iter().any(|(known, _)| *known == notice) {
            return false;
        }
        notices.push((notice, now));
        true
    }
}

impl NoticeSink for EventRecorder {
    fn notify(&self, pod: &Arc<PodFacts>, notice: Notice) {
        if self.is_news(&pod.uid, &notice, Instant::now()) && self.queue.try_send((Arc::clone(pod), notice)).is_err() {
            self.dropped.inc();
        }
    }
}

async fn write_all(client: Client, mut waiting: mpsc::Receiver<(Arc<PodFacts>, Notice)>) {
    let recorder = Recorder::new(client, Reporter::from(REPORTER));
    while let Some((pod, notice)) = waiting.recv().await {
        let (event, pod) = (event(&notice), reference(&pod));
        let written = tokio::time::timeout(WRITE_TIMEOUT, recorder.publish(&event, &pod)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(elapsed) => Some(elapsed.to_string()),
        };
        if let Some(error) = error {
            tracing::warn!(namespace = ?pod.namespace, pod = ?pod.name, error, "cannot write an Event");
        }
        tokio::time::sleep(WRITE_INTERVAL).await;
    }
}

fn event(notice: &Notice) -> Event {
    let (reason, note) = match notice {
        Notice::RoleForbidden { requested, explanation } => {
            ("KiamRoleForbidden", format!("failed assuming role {requested:?}: {explanation}"))
        }
        Notice::CredentialError { explanation } => {
            ("KiamCredentialError", format!("failed retrieving credentials: {explanation}"))
        }
    };
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        // kube merges Events with the same action and keeps the text of the first, so each text gets its own action.
        action: format!("AssumeRole-{}", short_digest(&note)),
        note: Some(cut(note, NOTE_LEN_MAX)),
        secondary: None,
    }
}

fn reference(pod: &PodFacts) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.as_str().to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(role: &str) -> Notice {
        Notice::RoleForbidden { requested: role.to_owned(), explanation: "no".to_owned() }
    }

    fn recorder() -> (EventRecorder, mpsc::Receiver<(Arc<PodFacts>, Notice)>) {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN_MAX);
        (
            EventRecorder { queue, recent: Mutex::default(), hasher: RandomState::new(), dropped: Counter::default() },
            waiting,
        )
    }

    #[test]
    fn texts_are_those_of_kiam() {
        let note = event(&forbidden("red")).note.unwrap();
        assert_eq!(note, "failed assuming role \"red\": no");
        let error = Notice::CredentialError { explanation: "AccessDenied: not you".to_owned() };
        let event = event(&error);
        assert_eq!(event.note.unwrap(), "failed retrieving credentials: AccessDenied: not you");
        assert_eq!(event.reason, "KiamCredentialError");
        assert!(matches!(event.type_, EventType::Warning));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let note = event(&forbidden(&"ä".repeat(2000))).note.unwrap();
        assert!(note.len() <= NOTE_LEN_MAX && note.len() > NOTE_LEN_MAX - 8);
    }

    #[tokio::test(start_paused = true)]
    async fn notices_are_limited_per_pod() {
        let (recorder, _waiting) = recorder();
        let (pod, other) = (PodUid::parse("a").unwrap(), PodUid::parse("b").unwrap());
        let news = |pod: &PodUid, role: &str| recorder.is_news(pod, &forbidden(role), Instant::now());
        assert!(news(&pod, "red"));
        assert!(!news(&pod, "red"));
        assert!(news(&other, "red"));
        let taken = (0..100).filter(|n| news(&pod, &format!("role-{n}"))).count();
        assert_eq!(taken, NOTICES_PER_POD_MAX - 1);
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert!(news(&pod, "red"));
    }
}

//! One watch: a stream of JSON lines that goes on until the client or its time-out ends it.

use super::store::{Kind, Store};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How often a quiet watch says that it lives. A real API server does it each minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// Longest watch, in seconds, where the client names none (kube-apiserver's is 30 to 60 minutes).
const WATCH_SECONDS_MAX: u64 = 3600;

/// What a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) filter: Filter,
    pub(super) since: u64,
    pub(super) bookmarks: bool,
    pub(super) seconds: Option<u64>,
}

/// Which objects of a kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
}

impl Filter {
    pub(super) fn matches(&self, object: &Value) -> bool {
        let is = |wanted: &Option<String>, value: &Value| {
            wanted.as_ref().is_none_or(|wanted| value.as_str() == Some(wanted.as_str()))
        };
        is(&self.namespace, &object["metadata"]["namespace"])
            && is(&self.name, &object["metadata"]["name"])
            && is(&self.node, &object["spec"]["nodeName"])
    }
}

/// Sends what happens until the client goes or the time is over.
pub(super) async fn serve(store: Arc<Store>, wanted: Wanted, mut out: http_body_util::channel::Sender<Bytes>) {
    store.count_watcher().fetch_add(1, Ordering::Relaxed);
    let time_out = Duration::from_secs(wanted.seconds.unwrap_or(WATCH_SECONDS_MAX));
    let mut ended = store.ended();
    // Over: the stream ends without a word, as the real one's does.
    tokio::select! {
        () = send_changes(&store, &wanted, &mut out) => {}
        () = tokio::time::sleep(time_out) => {}
        _ = ended.changed() => {}
    }
    store.count_watcher().fetch_sub(1, Ordering::Relaxed);
}

async fn send_changes(store: &Store, wanted: &Wanted, out: &mut http_body_util::channel::Sender<Bytes>) {
    let mut changed = store.subscribe();
    let mut cursor = wanted.since;
    let mut bookmark = tokio::time::interval(BOOKMARK_INTERVAL);
    bookmark.reset();
    loop {
        let Some((newest, changes)) = store.changes_after(cursor, wanted.kind) else {
            // The client lists anew; the stream ends with the error.
            drop(out.send_data(line("ERROR", &too_old())).await);
            return;
        };
        for change in changes.iter().filter(|change| wanted.filter.matches(&change.object)) {
            if out.send_data(line(change.action, &change.object)).await.is_err() {
                return;
            }
        }
        cursor = newest;
        tokio::select! {
            _ = changed.changed() => {}
            _ = bookmark.tick() => {
                if wanted.bookmarks && !store.is_held_back() {
                    let kind = if wanted.kind == Kind::Pod { "Pod" } else { "Namespace" };
                    let mark = json!({"kind": kind, "apiVersion": "v1",
                        "metadata": {"resourceVersion": cursor.to_string(), "creationTimestamp": null},
                        "spec": {"containers": []}});
                    if out.send_data(line("BOOKMARK", &mark)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The `Status` of a version that is gone.
pub(super) fn too_old() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version"})
}

fn line(action: &str, object: &Value) -> Bytes {
    // Not by `json!`, which would copy the object first.
    Bytes::from(format!("{{\"type\":\"{action}\",\"object\":{object}}}\n"))
}

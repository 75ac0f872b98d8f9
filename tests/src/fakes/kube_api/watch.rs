//! One watch: a stream of JSON lines that goes on until the client or its time-out ends it.

use super::{
    selector::Filter,
    store::{Change, Kind, Object, Store},
    view::View,
};
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
    pub(super) view: View,
    pub(super) since: u64,
    pub(super) bookmarks: bool,
    pub(super) seconds: Option<u64>,
}

impl Wanted {
    /// What a change is to this watch: an object that is not one of its any more is deleted, whatever became of it.
    fn line(&self, change: &Change) -> Option<Bytes> {
        let was = change.before.as_deref().is_some_and(|before| self.filter.matches(before));
        let is = change.action != "DELETED" && self.filter.matches(&change.object);
        let action = match (was, is) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(self.show(action, &change.object))
    }

    fn show(&self, action: &str, object: &Object) -> Bytes {
        match self.view {
            // Not by way of a copy.
            View::Whole => line(action, object),
            View::Metadata => line(action, &self.view.show(object)),
        }
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
        for change in changes.iter().filter_map(|change| wanted.line(change)) {
            if out.send_data(change).await.is_err() {
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
                    if out.send_data(wanted.show("BOOKMARK", &Object::new(mark))).await.is_err() {
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

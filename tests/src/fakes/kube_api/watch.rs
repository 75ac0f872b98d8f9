//! A watch: a stream of JSON lines that continues until the client or its timeout ends it.

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

/// Interval of the bookmarks of a quiet watch. A real API server sends one each minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// Seconds of the longest watch without a client's timeout (kube-apiserver's is 30 to 60 minutes).
const WATCH_SECONDS_MAX: u64 = 3600;

/// A client's request.
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
    /// Returns the line for a change. An object that no longer matches the filter is reported as deleted.
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
            // Without a copy.
            View::Whole => line(action, object),
            View::Metadata => line(action, &self.view.show(object)),
        }
    }
}

/// Sends changes until the client disconnects or the time is over.
pub(super) async fn serve(store: Arc<Store>, wanted: Wanted, mut out: http_body_util::channel::Sender<Bytes>) {
    store.count_watcher().fetch_add(1, Ordering::Relaxed);
    let time_out = Duration::from_secs(wanted.seconds.unwrap_or(WATCH_SECONDS_MAX));
    let mut ended = store.ended();
    // The stream ends without an error, as a real server's does.
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
            // The client lists again; the stream ends with the error.
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

/// Returns the `Status` for a version that is gone.
pub(super) fn too_old() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version"})
}

fn line(action: &str, object: &Value) -> Bytes {
    // Not by `json!`, which would copy the object first.
    Bytes::from(format!("{{\"type\":\"{action}\",\"object\":{object}}}\n"))
}

//! The objects, their versions, and the history that watches are served from.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// Number of changes kept for watches; a watch from before the oldest one fails with «too old».
const HISTORY_MAX: usize = 10_000;

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Pod.
    Pod,
    /// core/v1 or events.k8s.io/v1 Event, stored unchanged.
    Event,
}

/// An object at one version.
pub(super) type Object = Arc<Value>;

/// Namespace (empty for a Namespace) and name.
type Key = (String, String);

/// A change of an object.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) kind: Kind,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) action: &'static str,
    pub(super) object: Object,
    /// Object before the change.
    pub(super) before: Option<Object>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    objects: BTreeMap<(Kind, Key), Object>,
    history: VecDeque<Change>,
    /// Newest version that is no longer in the history.
    forgotten: u64,
    held_back: bool,
}

#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    ended: watch::Sender<()>,
    watchers: AtomicUsize,
}

impl Default for Store {
    fn default() -> Self {
        let inner = Inner {
            version: 1000, // A cluster that has existed for a while.
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            held_back: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
            ended: watch::Sender::new(()),
            watchers: AtomicUsize::new(0),
        }
    }
}

impl Store {
    /// Creates or replaces an object.
    pub(super) fn put(&self, kind: Kind, object: Value) -> Object {
        let key = key_of(&object);
        let mut inner = self.lock();
        let action = if inner.objects.contains_key(&(kind, key.clone())) { "MODIFIED" } else { "ADDED" };
        let object = inner.record(kind, key, action, object);
        drop(inner);
        self.changed.send_replace(());
        object
    }

    /// Creates an object; `None` if the name is taken.
    pub(super) fn create(&self, kind: Kind, object: Value) -> Option<Object> {
        let exists = self.lock().objects.contains_key(&(kind, key_of(&object)));
        if exists { None } else { Some(self.put(kind, object)) }
    }

    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        self.lock().objects.get(&(kind, (namespace.to_owned(), name.to_owned()))).cloned()
    }

    /// Applies a merge patch (RFC 7386); `None` if there is no such object.
    pub(super) fn patch(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Option<Object> {
        let mut object = Arc::unwrap_or_clone(self.get(kind, namespace, name)?);
        merge(&mut object, patch);
        Some(self.put(kind, object))
    }

    pub(super) fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut inner = self.lock();
        let object = inner.objects.get(&(kind, key.clone())).cloned()?;
        let object = inner.record(kind, key, "DELETED", Arc::unwrap_or_clone(object));
        drop(inner);
        self.changed.send_replace(());
        Some(object)
    }

    /// Returns all objects of a kind, and the version of this state.
    pub(super) fn list(&self, kind: Kind) -> (u64, Vec<Object>) {
        let inner = self.lock();
        let objects = inner.objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, object)| Arc::clone(object));
        (inner.version, objects.collect())
    }

    /// Returns the changes of a kind after a version, and the newest version; no changes while the watches are held
    /// back. `None` if the version is too old.
    pub(super) fn changes_after(&self, version: u64, kind: Kind) -> Option<(u64, Vec<Change>)> {
        let inner = self.lock();
        if version < inner.forgotten {
            return None;
        }
        if inner.held_back {
            return Some((version, Vec::new()));
        }
        let first = inner.history.partition_point(|change| change.version <= version);
        let changes = inner.history.range(first..).filter(|change| change.kind == kind).cloned().collect();
        Some((inner.version, changes))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn hold_back(&self, hold: bool) {
        self.lock().held_back = hold;
        self.changed.send_replace(());
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.lock().held_back
    }

    pub(super) fn compact(&self) {
        let mut inner = self.lock();
        inner.forgotten = inner.version;
        inner.history.clear();
        drop(inner);
        self.changed.send_replace(());
    }

    pub(super) fn end_watches(&self) {
        self.ended.send_replace(());
    }

    /// Returns a receiver that changes when the open watches must end.
    pub(super) fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    pub(super) fn count_watcher(&self) -> &AtomicUsize {
        &self.watchers
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under this lock")
    }
}

impl Inner {
    /// Gives the object its next version and records the change.
    fn record(&mut self, kind: Kind, key: Key, action: &'static str, mut object: Value) -> Object {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let before = match action {
            "DELETED" => self.objects.remove(&(kind, key)),
            _ => self.objects.insert((kind, key), Arc::clone(&object)),
        };
        self.history.push_back(Change { version: self.version, kind, action, object: Arc::clone(&object), before });
        if self.history.len() > HISTORY_MAX
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
        object
    }
}

fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// JSON merge patch, RFC 7386 §2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("an object, as made above").remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let mut object = json!({"metadata": {"annotations": {"a": "1", "b": "2"}}});
        merge(&mut object, &json!({"metadata": {"annotations": {"a": null, "c": "3"}}}));
        assert_eq!(object, json!({"metadata": {"annotations": {"b": "2", "c": "3"}}}));
    }

    #[test]
    fn a_version_before_the_compaction_is_too_old() {
        let store = Store::default();
        let (before, _) = store.list(Kind::Pod);
        store.put(Kind::Pod, json!({"metadata": {"namespace": "n", "name": "p"}}));
        assert_eq!(store.changes_after(before, Kind::Pod).unwrap().1.len(), 1);
        store.compact();
        assert!(store.changes_after(before, Kind::Pod).is_none());
    }
}

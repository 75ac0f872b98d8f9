//! A fake Kubernetes API: list, watch, get, create, patch, replace and delete of pods, namespaces and Events, with the
//! resource versions of a real API server, and controls that a real one does not have.
//!
//! It is driven in process by [`KubeApi`], or over HTTP like a real one
//! (`curl -X PATCH -H 'content-type: application/merge-patch+json' …`).

mod objects;
mod rest;
mod selector;
mod store;
mod view;
mod watch;

use crate::{fakes::http_server::HttpServer, node::netns::Netns};
use anyhow::{Context as _, Result};
pub use objects::{NamespaceObject, PodObject};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};
pub use store::Kind;
use store::Store;

/// Usual port of an API server.
const PORT: u16 = 6443;

/// A running fake, on the loopback address of a namespace. Clones share it.
#[derive(Debug, Clone)]
pub struct KubeApi {
    store: Arc<Store>,
    address: SocketAddr,
    server: Arc<Mutex<Option<HttpServer>>>,
}

impl KubeApi {
    /// Starts an empty cluster that listens on the loopback address of `node`.
    pub fn start(node: &Netns) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let api = Self { store: Arc::new(Store::default()), address, server: Arc::default() };
        api.listen(node)?;
        Ok(api)
    }

    /// Listens again after [`KubeApi::stop`], with the same objects.
    pub fn listen(&self, node: &Netns) -> Result<()> {
        let listener = node.enter(|| TcpListener::bind(self.address).context("bind the fake Kubernetes API"))?;
        let handler = Arc::new(rest::Rest::new(Arc::clone(&self.store)));
        let server = HttpServer::start(vec![listener], handler)?;
        *self.server.lock().expect("no panic under this lock") = Some(server);
        Ok(())
    }

    /// Stops listening and closes every connection.
    pub fn stop(&self) {
        *self.server.lock().expect("no panic under this lock") = None;
    }

    /// Returns its URL in the node's namespace.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a kubeconfig for it, as YAML (JSON is YAML).
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url()}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        })
        .to_string()
    }

    /// Creates or replaces a namespace.
    pub fn put_namespace(&self, namespace: &NamespaceObject) {
        self.store.put(Kind::Namespace, namespace.to_json());
    }

    /// Creates or replaces a pod.
    pub fn put_pod(&self, pod: &PodObject) {
        self.store.put(Kind::Pod, pod.to_json());
    }

    /// Changes an object as `kubectl patch --type=merge` does.
    pub fn merge_patch(&self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        self.store.patch(kind, namespace, name, patch).with_context(|| format!("no {kind:?} {namespace}/{name}"))?;
        Ok(())
    }

    /// Sets an annotation, or removes it with `None`.
    pub fn annotate(&self, kind: Kind, namespace: &str, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.merge_patch(kind, namespace, name, &json!({"metadata": {"annotations": {key: value}}}))
    }

    /// Deletes a pod completely, as the kubelet does in the end.
    pub fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.store.delete(Kind::Pod, namespace, name).with_context(|| format!("no pod {namespace}/{name}"))?;
        Ok(())
    }

    /// Returns all Events of both API groups.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.store.list(Kind::Event).1.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Withholds changes from the watchers while their connections stay open, until called with `false`.
    pub fn hold_watch_back(&self, hold: bool) {
        self.store.hold_back(hold);
    }

    /// Forgets the history: a watch from an older version is answered with 410, as after etcd's compaction.
    pub fn compact(&self) {
        self.store.compact();
    }

    /// Ends every watch without an error, as an API server does after a watch's timeout: the client continues from its
    /// last version.
    pub fn end_watches(&self) {
        self.store.end_watches();
    }

    /// Returns the number of open watches, over all kinds.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.store.watchers()
    }
}

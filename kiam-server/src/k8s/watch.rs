//! Two watches that never end: what the API server tells goes into the index, and what it can't tell is asked again.

use super::{convert::PodName, lookup::Cluster};
use crate::core::{namespace::NamespaceFacts, pod::PodFacts};
use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kiam_common::{kubernetes::Backoff, telemetry::chain};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::watcher::{self, Event, watcher},
};
use prometheus_client::{encoding::EncodeLabelSet, metrics::counter::Counter, metrics::family::Family};
use serde::de::DeserializeOwned;
use std::{error::Error, fmt::Debug, pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A watch is renewed after this long, so that a connection that is open but mute is noticed: within 65 s.
const WATCH_LEN_SECONDS: u32 = 60;
/// What the watches count.
#[derive(Clone, Default)]
pub(crate) struct WatchMetrics {
    /// Errors, by resource.
    pub(crate) errors: Family<ResourceLabel, Counter>,
    /// Objects that could not be read, by resource.
    pub(crate) skipped: Family<ResourceLabel, Counter>,
}

/// `pods` or `namespaces`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct ResourceLabel {
    resource: &'static str,
}

/// Keeps the index's pods current. Never returns.
pub(crate) async fn watch_pods(client: Client, cluster: Arc<Cluster>, metrics: WatchMetrics) {
    follow::<Pod, _>(Api::all(client), &Pods(cluster), &metrics).await;
}

/// Keeps the index's namespaces current. Never returns.
pub(crate) async fn watch_namespaces(client: Client, cluster: Arc<Cluster>, metrics: WatchMetrics) {
    follow::<Namespace, _>(Api::all(client), &Namespaces(cluster), &metrics).await;
}

/// Where objects of one kind go.
trait Target<K> {
    const LABEL: ResourceLabel;
    type Facts;
    fn convert(&self, object: K) -> Result<Self::Facts, Box<dyn Error>>;
    fn apply(&self, facts: Self::Facts);
    fn remove(&self, metadata: &ObjectMeta);
    fn reset(&self, all: Vec<Self::Facts>);
}

struct Pods(Arc<Cluster>);
struct Namespaces(Arc<Cluster>);

impl Target<Pod> for Pods {
    const LABEL: ResourceLabel = ResourceLabel { resource: "pods" };
    type Facts = PodFacts;

    fn convert(&self, object: Pod) -> Result<PodFacts, Box<dyn Error>> {
        Ok(self.0.convert_pod(object)?)
    }

    fn apply(&self, facts: PodFacts) {
        self.0.apply_pod(facts);
    }

    fn remove(&self, metadata: &ObjectMeta) {
        if let Some(name) = PodName::of(metadata) {
            self.0.remove_pod(&name);
        }
    }

    fn reset(&self, all: Vec<PodFacts>) {
        tracing::info!(pods = all.len(), "pods listed");
        self.0.reset_pods(all);
    }
}

impl Target<Namespace> for Namespaces {
    const LABEL: ResourceLabel = ResourceLabel { resource: "namespaces" };
    type Facts = NamespaceFacts;

    fn convert(&self, object: Namespace) -> Result<NamespaceFacts, Box<dyn Error>> {
        Ok(self.0.convert_namespace(object)?)
    }

    fn apply(&self, facts: NamespaceFacts) {
        self.0.apply_namespace(facts);
    }

    fn remove(&self, metadata: &ObjectMeta) {
        if let Some(name) = &metadata.name {
            self.0.remove_namespace(name);
        }
    }

    fn reset(&self, all: Vec<NamespaceFacts>) {
        tracing::info!(namespaces = all.len(), "namespaces listed");
        self.0.reset_namespaces(all);
    }
}

async fn follow<K, T>(api: Api<DeserializeGuard<K>>, target: &T, metrics: &WatchMetrics)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    T: Target<K>,
{
    let config = watcher::Config::default().timeout(WATCH_LEN_SECONDS);
    let mut events = pin!(watcher(api, config));
    let mut feed = Feed { target, metrics, listed: Vec::new() };
    let mut backoff = Backoff::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => feed.take(event),
            Err(error) => {
                let pause = backoff.next(Instant::now());
                metrics.errors.get_or_create(&T::LABEL).inc();
                complain(T::LABEL.resource, &error, pause);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn complain(resource: &'static str, error: &watcher::Error, pause: Duration) {
    if let watcher::Error::WatchError(status) = error
        && status.code == 410
    {
        tracing::info!(resource, "the watch fell too far behind: listing anew");
        return;
    }
    let error = chain(error);
    tracing::warn!(
        resource,
        error,
        retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        "the Kubernetes API cannot be watched: serving what is known, trying again"
    );
}

/// From the watch's events to the target: a list is gathered first, then it replaces all.
struct Feed<'a, K, T: Target<K>> {
    target: &'a T,
    metrics: &'a WatchMetrics,
    listed: Vec<T::Facts>,
}

impl<K: Resource<DynamicType = ()>, T: Target<K>> Feed<'_, K, T> {
    fn take(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                if let Some(facts) = self.read(object) {
                    self.listed.push(facts);
                }
            }
            Event::InitDone => self.target.reset(std::mem::take(&mut self.listed)),
            Event::Apply(object) => {
                let metadata = object.meta().clone();
                match self.read(object) {
                    Some(facts) => self.target.apply(facts),
                    // What it was before is no longer true, and what it is now can't be read.
                    None => self.target.remove(&metadata),
                }
            }
            Event::Delete(object) => self.target.remove(object.meta()),
        }
    }

    fn read(&self, object: DeserializeGuard<K>) -> Option<T::Facts> {
        let metadata = object.meta().clone();
        let facts = match object.0 {
            Ok(object) => self.target.convert(object).map_err(|error| error.to_string()),
            Err(invalid) => Err(invalid.error),
        };
        facts
            .inspect_err(|error| {
                self.metrics.skipped.get_or_create(&T::LABEL).inc();
                tracing::warn!(
                    resource = T::LABEL.resource, namespace = ?metadata.namespace, name = ?metadata.name, error,
                    "an object cannot be read and is left out"
                );
            })
            .ok()
    }
}

#[cfg(test)]
mod tests;

//! The watches of pods and namespaces. Both run for as long as the server does and keep the index current.

use super::{
    convert::{self, ConvertError, PodName},
    index::Index,
    lookup::Cluster,
};
use crate::core::{
    namespace::{NamespaceFacts, Permitted},
    pod::PodFacts,
};
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
use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Length of one watch request, seconds: a connection that is open but silent is detected within 65 s.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

/// Counters of the watches.
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
    follow::<Pod>(Api::all(client), &cluster, &metrics).await;
}

/// Keeps the index's namespaces current. Never returns.
pub(crate) async fn watch_namespaces(client: Client, cluster: Arc<Cluster>, metrics: WatchMetrics) {
    follow::<Namespace>(Api::all(client), &cluster, &metrics).await;
}

/// A watched resource, and how its objects change the index.
trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    const LABEL: ResourceLabel;
    type Facts;
    fn facts(self, cluster: &Cluster) -> Result<Self::Facts, ConvertError>;
    fn apply(index: &mut Index, facts: Self::Facts);
    fn remove(index: &mut Index, metadata: &ObjectMeta);
    fn reset(index: &mut Index, all: Vec<Self::Facts>);
}

impl Watched for Pod {
    const LABEL: ResourceLabel = ResourceLabel { resource: "pods" };
    type Facts = PodFacts;

    fn facts(self, _: &Cluster) -> Result<PodFacts, ConvertError> {
        convert::pod(self)
    }

    fn apply(index: &mut Index, facts: PodFacts) {
        index.apply_pod(facts, Instant::now());
    }

    fn remove(index: &mut Index, metadata: &ObjectMeta) {
        if let Some(name) = PodName::of(metadata) {
            index.remove_pod(&name);
        }
    }

    fn reset(index: &mut Index, all: Vec<PodFacts>) {
        index.reset_pods(all, Instant::now());
    }
}

impl Watched for Namespace {
    const LABEL: ResourceLabel = ResourceLabel { resource: "namespaces" };
    type Facts = NamespaceFacts;

    /// Compiles the namespace's expression, unless the index has it compiled, and logs an invalid one.
    fn facts(self, cluster: &Cluster) -> Result<NamespaceFacts, ConvertError> {
        let known = self.metadata.name.as_deref().and_then(|name| cluster.namespace(name));
        let facts = convert::namespace(self, cluster.anchoring(), known.as_deref())?;
        if let Permitted::Invalid { expression, error } = &facts.permitted {
            tracing::warn!(
                namespace = facts.name, ?expression, %error,
                "annotation iam.amazonaws.com/permitted is not a regular expression: pods of this namespace get no role"
            );
        }
        Ok(facts)
    }

    fn apply(index: &mut Index, facts: NamespaceFacts) {
        index.apply_namespace(facts);
    }

    fn remove(index: &mut Index, metadata: &ObjectMeta) {
        if let Some(name) = &metadata.name {
            index.remove_namespace(name);
        }
    }

    fn reset(index: &mut Index, all: Vec<NamespaceFacts>) {
        index.reset_namespaces(all);
    }
}

async fn follow<K: Watched>(api: Api<DeserializeGuard<K>>, cluster: &Cluster, metrics: &WatchMetrics) {
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
    let mut events = pin!(watcher(api, config));
    let mut feed = Feed::<K> { cluster, metrics, listed: Vec::new() };
    let mut backoff = Backoff::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => feed.take(event),
            Err(error) => {
                let delay = backoff.next(Instant::now());
                metrics.errors.get_or_create(&K::LABEL).inc();
                log_error(K::LABEL.resource, &error, delay);
                tokio::time::sleep(delay).await;
            }
        }
    }
}

fn log_error(resource: &'static str, error: &watcher::Error, delay: Duration) {
    if let watcher::Error::WatchError(status) = error
        && status.code == 410
    {
        tracing::info!(resource, "the watch fell too far behind; listing again");
        return;
    }
    tracing::warn!(
        resource,
        error = chain(error),
        retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        "cannot watch the Kubernetes API; serving from the last known state, retrying"
    );
}

/// Applies the events of a watch to the index. A list is gathered first, then it replaces everything.
struct Feed<'a, K: Watched> {
    cluster: &'a Cluster,
    metrics: &'a WatchMetrics,
    listed: Vec<K::Facts>,
}

impl<K: Watched> Feed<'_, K> {
    fn take(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                if let Some(facts) = self.read(object) {
                    self.listed.push(facts);
                }
            }
            Event::InitDone => {
                let all = std::mem::take(&mut self.listed);
                tracing::info!(resource = K::LABEL.resource, count = all.len(), "listed");
                self.cluster.change(|index| K::reset(index, all));
            }
            Event::Apply(object) => {
                let metadata = object.meta().clone();
                let facts = self.read(object);
                self.cluster.change(|index| match facts {
                    Some(facts) => K::apply(index, facts),
                    // The facts in the index are outdated, and the new ones can't be read.
                    None => K::remove(index, &metadata),
                });
            }
            Event::Delete(object) => self.cluster.change(|index| K::remove(index, object.meta())),
        }
    }

    fn read(&self, object: DeserializeGuard<K>) -> Option<K::Facts> {
        let metadata = object.meta().clone();
        let facts = match object.0 {
            Ok(object) => object.facts(self.cluster).map_err(|error| error.to_string()),
            Err(invalid) => Err(invalid.error),
        };
        facts
            .inspect_err(|error| {
                self.metrics.skipped.get_or_create(&K::LABEL).inc();
                tracing::warn!(
                    resource = K::LABEL.resource, namespace = ?metadata.namespace, name = ?metadata.name, error,
                    "skipped: cannot read an object of the Kubernetes API"
                );
            })
            .ok()
    }
}

#[cfg(test)]
mod tests;

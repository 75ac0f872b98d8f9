//! The Kubernetes side: two watches that feed one index, and Events for the people behind a pod.
//!
//! What the API server tells is cut down to a few facts at once; nothing here decides who may have what.

mod convert;
mod events;
mod index;
mod lookup;
mod watch;

pub(crate) use events::EventRecorder;
pub(crate) use lookup::Cluster;
pub(crate) use watch::{WatchMetrics, watch_namespaces, watch_pods};

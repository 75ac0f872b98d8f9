//! Kubernetes: two watches that feed one index, and Events for the owners of pods.
//!
//! Objects are reduced to a few facts on arrival. This module makes no policy decisions.

mod convert;
mod events;
mod index;
mod lookup;
mod watch;

pub(crate) use events::EventRecorder;
pub(crate) use lookup::Cluster;
pub(crate) use watch::{WatchMetrics, watch_namespaces, watch_pods};

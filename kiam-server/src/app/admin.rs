//! The server's answers at the admin endpoint.

use crate::{core::lookup::PodLookup as _, k8s::Cluster};
use kiam_common::admin::{AdminHandler, encode};
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Health and metrics of the server.
pub(super) struct Admin {
    pods: Arc<Cluster>,
    registry: Registry,
}

impl Admin {
    pub(super) const fn new(pods: Arc<Cluster>, registry: Registry) -> Self {
        Self { pods, registry }
    }
}

impl AdminHandler for Admin {
    fn health(&self) -> Result<String, String> {
        if self.pods.is_synced() {
            Ok("ok\n".to_owned())
        } else {
            Err("pods and namespaces have not been listed yet; see the log for errors of the Kubernetes API\n"
                .to_owned())
        }
    }

    fn metrics(&self) -> Option<String> {
        encode(&self.registry)
    }
}

//! Notices to the owner of a pod, published as Events of Kubernetes.

use super::pod::PodFacts;
use std::sync::Arc;

/// Reason why a pod got no credentials.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Notice {
    /// Denied by policy.
    RoleForbidden { requested: String, explanation: String },
    /// STS refused, or could not be reached.
    CredentialError { explanation: String },
}

/// Publishes notices. Never waits: a notice that does not fit is dropped and counted.
pub(crate) trait NoticeSink: Send + Sync + 'static {
    fn notify(&self, pod: &Arc<PodFacts>, notice: Notice);
}

//! From what went wrong to what an agent is told. kiam's server answers everything with `Unknown` and a text that its
//! agents know (kiam v4.2, pkg/server); `Unavailable` and `PermissionDenied` are ours: for what passes by
//! itself, and for a caller who is not who it is said to be.

use crate::core::{
    lookup::LookupError,
    policy::Denial,
    provider::{CredentialError, FailureClass},
};
use kiam_common::proto::CONTRADICTION;
use tonic::Status;

/// Which of kiam's two texts for the same thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    PodRole,
    PodCredentials,
}

pub(super) fn of_lookup(error: LookupError, method: Method) -> Status {
    match (error, method) {
        (LookupError::NotSynced, _) => not_synced(),
        (LookupError::NotFound, Method::PodRole) => Status::unknown("pod not found"),
        (LookupError::NotFound, Method::PodCredentials) => Status::unknown("no pod found"),
        (LookupError::Contradiction, _) => Status::permission_denied(CONTRADICTION),
        (LookupError::Ambiguous, _) => Status::unknown("multiple running pods found"),
    }
}

pub(super) fn not_synced() -> Status {
    Status::unavailable("the server has not listed pods and namespaces yet")
}

/// The explanation is for the log and the Event: a pod learns that it may not, not what would be allowed.
pub(super) fn of_denial(denial: &Denial) -> Status {
    match denial {
        Denial::NoRole => Status::unknown("role can't be empty"),
        Denial::NotAnnotated { .. }
        | Denial::NothingPermitted { .. }
        | Denial::NotPermitted { .. }
        | Denial::InvalidNamespace { .. }
        | Denial::InvalidAnnotation { .. } => Status::unknown("forbidden by policy"),
    }
}

pub(super) fn of_credentials(error: &CredentialError) -> Status {
    match error.class {
        FailureClass::AccessDenied | FailureClass::Other => Status::unknown(error.message.clone()),
        FailureClass::Throttled | FailureClass::Transient => Status::unavailable(error.message.clone()),
    }
}

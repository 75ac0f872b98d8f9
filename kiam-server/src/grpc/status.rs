//! Conversion of errors to gRPC statuses. kiam's server returns `Unknown` for everything, with a text that its agents
//! expect (kiam v4.2, pkg/server). `Unavailable`, for transient errors, and `PermissionDenied`, for a uid and an
//! address of different pods, are additions.

use crate::core::{
    lookup::LookupError,
    policy::Denial,
    provider::{CredentialError, FailureClass},
};
use kiam_common::proto::CONTRADICTION;
use tonic::Status;

/// The called method: kiam has a different text for the same error in each.
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

/// Hides the explanation, which is for the log and the Event: the pod must not read what would be permitted.
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

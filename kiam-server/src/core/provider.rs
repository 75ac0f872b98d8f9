//! Sources of credentials, implemented by STS and by the cache, and the clock that both use.

use super::credentials::{Credentials, Identity};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::{future::Future, sync::Arc};

/// The time of day; tests replace it.
pub(crate) trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// Kind of a failure; decides how soon the next attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureClass {
    /// The role's trust policy or the server's own permissions deny it: an early retry changes nothing.
    AccessDenied,
    /// STS throttles the account's calls.
    Throttled,
    /// Network, time-out, or a fault of STS.
    Transient,
    /// Any other answer of STS: a malformed request, a disabled region.
    Other,
}

/// Reason why there are no credentials for an identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CredentialError {
    pub(crate) class: FailureClass,
    /// `Code: message` as AWS returned it, or what failed before an answer came; one line, without secrets.
    pub(crate) message: String,
}

/// Creates credentials: STS.
pub(crate) trait CredentialProvider: Send + Sync + 'static {
    fn assume<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Credentials, CredentialError>>;
}

/// Holds credentials: the cache.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// Returns valid credentials of this identity.
    fn credentials(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<Arc<Credentials>, CredentialError>> + Send;
}

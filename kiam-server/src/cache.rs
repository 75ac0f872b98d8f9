//! The credential cache. Handles read published credentials and request the rest from one worker. The worker owns the
//! plan: which identity is wanted, fetched, refreshed, in backoff after a failure, or forgotten.
//!
//! A fetch belongs to the cache and not to the first caller: a caller that gives up does not cancel it for others, and
//! an identity is fetched once for any number of callers.

mod backoff;
mod metrics;
mod plan;
mod prefetch;
mod worker;

pub(crate) use metrics::CacheMetrics;
pub(crate) use prefetch::prefetch;
pub(crate) use worker::{Settings, worker};

use crate::core::{
    credentials::{Credentials, Identity},
    ids::PodUid,
    provider::{Clock, CredentialError, CredentialSource, FailureClass},
};
use dashmap::DashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Valid credentials by identity: written by the worker, read directly by handles.
type Published = DashMap<Identity, Arc<Credentials>>;

/// Response to a request for credentials.
type Answer = Result<Arc<Credentials>, CredentialError>;

/// Message to the worker.
enum Message {
    /// A caller waits for credentials of this identity.
    Request { identity: Identity, reply: oneshot::Sender<Answer> },
    /// The pod will request this identity; `None`: no identity.
    Interest { pod: PodUid, identity: Option<Identity> },
}

/// A handle of the cache.
#[derive(Clone)]
pub(crate) struct Cache {
    published: Arc<Published>,
    messages: mpsc::Sender<Message>,
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
}

impl Cache {
    /// Records the identity that a pod will request.
    pub(crate) async fn interest(&self, pod: PodUid, identity: Option<Identity>) -> Result<(), CredentialError> {
        self.messages.send(Message::Interest { pod, identity }).await.map_err(|_closed| stopped())
    }

    fn published(&self, identity: &Identity) -> Option<Arc<Credentials>> {
        let credentials = Arc::clone(&*self.published.get(identity)?);
        credentials.is_valid_at(self.clock.now()).then_some(credentials)
    }
}

impl CredentialSource for Cache {
    async fn credentials(&self, identity: &Identity) -> Answer {
        if let Some(credentials) = self.published(identity) {
            self.metrics.hits.inc();
            return Ok(credentials);
        }
        self.metrics.misses.inc();
        let (reply, answer) = oneshot::channel();
        let request = Message::Request { identity: identity.clone(), reply };
        self.messages.send(request).await.map_err(|_closed| stopped())?;
        answer.await.map_err(|_dropped| stopped())?
    }
}

fn stopped() -> CredentialError {
    CredentialError { class: FailureClass::Transient, message: "the server is stopping".to_owned() }
}

#[cfg(test)]
mod tests;

//! Credentials before they are asked for: what changes among the pods becomes interest in the cache. Policy is obeyed,
//! so an annotation alone makes nobody call STS.

use super::Cache;
use crate::core::{lookup::PodChange, lookup::PodChanges, policy::Policy};
use std::sync::Arc;

/// Pods that are looked at in one go, between which others get the index's lock.
const BATCH_MAX: usize = 256;

/// Follows the pods. Ends with the cache only.
pub(crate) async fn prefetch(changes: Arc<impl PodChanges>, policy: Arc<Policy>, cache: Cache) {
    let mut seen = 0;
    loop {
        changes.changed(&mut seen).await;
        loop {
            let batch = changes.take(BATCH_MAX);
            if batch.is_empty() {
                break;
            }
            for PodChange { pod, now } in batch {
                let identity = now.and_then(|(pod, namespace)| policy.foresee(&pod, namespace.as_deref()));
                if cache.interest(pod, identity).await.is_err() {
                    return;
                }
            }
        }
    }
}

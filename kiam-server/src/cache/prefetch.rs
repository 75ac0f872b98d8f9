//! Prefetching: changes of pods become interest in the cache. The policy is applied first, so an annotation alone does
//! not cause a call to STS.

use super::Cache;
use crate::core::{lookup::PodChange, lookup::PodChanges, policy::Policy};
use std::sync::Arc;

/// Most pods taken at once, so that others get the index's lock in between.
const BATCH_MAX: usize = 256;

/// Follows the pods. Returns when the cache has ended.
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
                let identity = now.and_then(|(pod, namespace)| policy.expected_identity(&pod, namespace.as_deref()));
                if cache.interest(pod, identity).await.is_err() {
                    return;
                }
            }
        }
    }
}

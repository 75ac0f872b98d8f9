//! Metrics of STS and the cache, under kiam's names (kiam v4.2, pkg/aws/sts/metrics.go).

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Metrics of the cache.
#[derive(Clone)]
pub(crate) struct CacheMetrics {
    pub(super) size: Gauge,
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) errors: Counter,
    pub(super) calls: Gauge,
    pub(super) timing: Histogram,
}

impl CacheMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            size: Gauge::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            errors: Counter::default(),
            calls: Gauge::default(),
            // kiam's buckets: 1 ms to 4.096 s.
            timing: Histogram::new(exponential_buckets(0.001, 2.0, 13)),
        };
        let sts = registry.sub_registry_with_prefix("kiam_sts");
        sts.register("cacheSize", "Identities with credentials in the cache", metrics.size.clone());
        sts.register("cache_hit", "Requests answered from the cache", metrics.hits.clone());
        sts.register("cache_miss", "Requests that had to wait for a fetch", metrics.misses.clone());
        sts.register("issuing_errors", "AssumeRole calls that failed", metrics.errors.clone());
        sts.register("assumerole_current", "AssumeRole calls in progress", metrics.calls.clone());
        sts.register("assumerole_timing_seconds", "Duration of AssumeRole calls", metrics.timing.clone());
        metrics
    }
}

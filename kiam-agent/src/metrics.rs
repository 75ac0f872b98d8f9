//! All metrics of the agent: name, help, labels. kiam's metrics keep their names and meaning; ours begin with
//! `kiam_agent_`.

mod datapath;
mod grpc;

pub(crate) use datapath::Datapath;
pub(crate) use grpc::Rpc;

use kiam_common::{rpc_metrics::RpcMetrics, tls::Side};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{
    fmt::{self, Write as _},
    time::Duration,
};
use tonic::Code;

/// Upper bound of the first latency bucket, seconds. As in kiam, each further one doubles, up to 4.096 s.
const LATENCY_BUCKET_FIRST_SECONDS: f64 = 0.001;
/// Number of latency buckets, as in kiam.
const LATENCY_BUCKET_COUNT: u16 = 13;

/// The handler of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Handler {
    RoleName,
    Credentials,
    /// All other paths, which kiam would have forwarded.
    Proxy,
    Token,
    /// Requests refused before their path was read.
    None,
}

impl EncodeLabelValue for Handler {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        // kiam's names, where kiam has one.
        encoder.write_str(match self {
            Self::RoleName => "roleName",
            Self::Credentials => "credentials",
            Self::Proxy => "proxy",
            Self::Token => "token",
            Self::None => "none",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerLabel {
    handler: Handler,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    handler: Handler,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The metrics of the worker. [`Datapath`] has those of the parent.
pub(crate) struct Metrics {
    latency: Family<HandlerLabel, Histogram, fn() -> Histogram>,
    success: Family<HandlerLabel, Counter>,
    responses: Family<ResponseLabels, Counter>,
    fetch_errors: Family<HandlerLabel, Counter>,
    find_role_errors: Family<HandlerLabel, Counter>,
    empty_role: Family<HandlerLabel, Counter>,
    blocked: Counter,
    refusals: Family<ReasonLabel, Counter>,
    connections: Gauge,
    connections_ended: Family<ReasonLabel, Counter>,
    server_connected: Gauge,
    server_connects: Counter,
    server_connect_errors: Counter,
    grpc: RpcMetrics,
}

impl Metrics {
    /// Creates and registers all metrics.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            latency: Family::new_with_constructor(latency),
            success: Family::default(),
            responses: Family::default(),
            fetch_errors: Family::default(),
            find_role_errors: Family::default(),
            empty_role: Family::default(),
            blocked: Counter::default(),
            refusals: Family::default(),
            connections: Gauge::default(),
            connections_ended: Family::default(),
            server_connected: Gauge::default(),
            server_connects: Counter::default(),
            server_connect_errors: Counter::default(),
            grpc: RpcMetrics::register(Side::Client, registry),
        };
        metrics.register_kiams(registry);
        metrics.register_ours(registry);
        metrics
    }

    fn register_kiams(&self, registry: &mut Registry) {
        let metadata = registry.sub_registry_with_prefix("kiam_metadata");
        metadata.register("handler_latency_seconds", "Time to answer a pod's request", self.latency.clone());
        metadata.register("success", "Requests answered with 200", self.success.clone());
        metadata.register("responses", "Answers by status", self.responses.clone());
        metadata.register("credential_fetch_errors", "Failures to get credentials", self.fetch_errors.clone());
        metadata.register("find_role_errors", "Failures to find a pod's role", self.find_role_errors.clone());
        metadata.register("empty_role", "Requests for the role of a pod that has none", self.empty_role.clone());
        metadata.register("proxy_requests_blocked", "Requests for paths that are not served", self.blocked.clone());
    }

    fn register_ours(&self, registry: &mut Registry) {
        let agent = registry.sub_registry_with_prefix("kiam_agent");
        agent.register("refusals", "Requests not answered with 200, by reason", self.refusals.clone());
        agent.register("connections", "Open connections from pods", self.connections.clone());
        let help = "Connections from pods that the agent ended, by reason";
        agent.register("connections_ended", help, self.connections_ended.clone());
        agent.register("server_connected", "1 while a server is connected", self.server_connected.clone());
        agent.register("server_connects", "Connections made to servers", self.server_connects.clone());
        let help = "Failed attempts to connect to a server";
        agent.register("server_connect_errors", help, self.server_connect_errors.clone());
    }

    /// Counts an answered request of a pod, with the reason if it was refused.
    pub(crate) fn answered(&self, handler: Handler, code: u16, took: Duration, refusal: Option<&'static str>) {
        self.latency.get_or_create(&HandlerLabel { handler }).observe(took.as_secs_f64());
        self.responses.get_or_create(&ResponseLabels { handler, code }).inc();
        if code == 200 {
            self.success.get_or_create(&HandlerLabel { handler }).inc();
        }
        if let Some(reason) = refusal {
            self.refusals.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Counts a failure to find the role of a pod.
    pub(crate) fn role_failed(&self) {
        self.find_role_errors.get_or_create(&HandlerLabel { handler: Handler::RoleName }).inc();
    }

    /// Counts a request for the role of a pod without one.
    pub(crate) fn role_empty(&self) {
        self.empty_role.get_or_create(&HandlerLabel { handler: Handler::RoleName }).inc();
    }

    /// Counts a failed request for credentials.
    pub(crate) fn credentials_failed(&self) {
        self.fetch_errors.get_or_create(&HandlerLabel { handler: Handler::Credentials }).inc();
    }

    /// Counts a request for a path that is not served.
    pub(crate) fn path_blocked(&self) {
        self.blocked.inc();
    }

    /// Returns the gauge of open connections.
    pub(crate) fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// Counts a connection that the agent ended.
    pub(crate) fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts an attempt to connect to a server.
    pub(crate) fn connect_tried(&self, connected: bool) {
        if connected { &self.server_connects } else { &self.server_connect_errors }.inc();
    }

    /// Sets whether a server is connected.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.server_connected.set(i64::from(connected));
    }

    /// Counts the start of a call to a server.
    pub(crate) fn rpc_started(&self, rpc: Rpc) {
        self.grpc.started(rpc.method());
    }

    /// Counts the end of a call to a server.
    pub(crate) fn rpc_handled(&self, rpc: Rpc, code: Code) {
        self.grpc.handled(rpc.method(), code);
    }
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(LATENCY_BUCKET_FIRST_SECONDS, 2.0, LATENCY_BUCKET_COUNT))
}

#[cfg(test)]
mod tests;

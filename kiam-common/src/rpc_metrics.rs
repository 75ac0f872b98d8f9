//! Counters of gRPC calls, under the names that go-grpc-prometheus gives them in kiam.

use crate::tls::Side;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::Code;

/// Counters of calls, `grpc_client_…` or `grpc_server_…`.
#[derive(Clone)]
pub struct RpcMetrics {
    side: Side,
    started: Family<MethodLabels, Counter>,
    handled: Family<HandledLabels, Counter>,
    sent: Family<MethodLabels, Counter>,
    received: Family<MethodLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

const UNARY: &str = "unary";
const SERVICE: &str = "kiam.KiamService";

impl RpcMetrics {
    /// Registers the counters of this side.
    pub fn register(side: Side, registry: &mut Registry) -> Self {
        let metrics = Self {
            side,
            started: Family::default(),
            handled: Family::default(),
            sent: Family::default(),
            received: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix(match side {
            Side::Server => "grpc_server",
            Side::Client => "grpc_client",
        });
        registry.register("started", "Calls started", metrics.started.clone());
        registry.register("handled", "Calls completed, by code", metrics.handled.clone());
        registry.register("msg_sent", "Messages sent", metrics.sent.clone());
        registry.register("msg_received", "Messages received", metrics.received.clone());
        metrics
    }

    /// Counts the start of a call, and its request.
    pub fn started(&self, method: &'static str) {
        let labels = labels(method);
        let requests = match self.side {
            Side::Server => &self.received,
            Side::Client => &self.sent,
        };
        self.started.get_or_create(&labels).inc();
        requests.get_or_create(&labels).inc();
    }

    /// Counts the end of a call, and its answer if there was one.
    pub fn handled(&self, method: &'static str, code: Code) {
        if code == Code::Ok {
            let answers = match self.side {
                Side::Server => &self.sent,
                Side::Client => &self.received,
            };
            answers.get_or_create(&labels(method)).inc();
        }
        let MethodLabels { grpc_type, grpc_service, grpc_method } = labels(method);
        let labels = HandledLabels { grpc_type, grpc_service, grpc_method, grpc_code: name(code) };
        self.handled.get_or_create(&labels).inc();
    }
}

fn labels(grpc_method: &'static str) -> MethodLabels {
    MethodLabels { grpc_type: UNARY, grpc_service: SERVICE, grpc_method }
}

/// Returns the name of a code in Go's gRPC.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

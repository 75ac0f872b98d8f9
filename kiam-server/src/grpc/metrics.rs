//! The counters that kiam's server has from go-grpc-prometheus, by their names.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::{Code, Response, Status};

/// What agents ask, and how it ends.
#[derive(Clone, Default)]
pub(crate) struct GrpcMetrics {
    started: Family<Call, Counter>,
    received: Family<Call, Counter>,
    sent: Family<Call, Counter>,
    handled: Family<Handled, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Call {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Handled {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

const UNARY: &str = "unary";
const SERVICE: &str = "kiam.KiamService";

impl GrpcMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let grpc = registry.sub_registry_with_prefix("grpc_server");
        grpc.register("started", "Requests that were begun", metrics.started.clone());
        grpc.register("msg_received", "Messages that were received", metrics.received.clone());
        grpc.register("msg_sent", "Messages that were sent", metrics.sent.clone());
        grpc.register("handled", "Requests that were ended, by code", metrics.handled.clone());
        metrics
    }

    pub(super) fn begin(&self, grpc_method: &'static str) {
        let call = Call { grpc_type: UNARY, grpc_service: SERVICE, grpc_method };
        self.started.get_or_create(&call).inc();
        self.received.get_or_create(&call).inc();
    }

    pub(super) fn end<T>(&self, grpc_method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        if result.is_ok() {
            self.sent.get_or_create(&Call { grpc_type: UNARY, grpc_service: SERVICE, grpc_method }).inc();
        }
        let handled = Handled { grpc_type: UNARY, grpc_service: SERVICE, grpc_method, grpc_code: go_name(code) };
        self.handled.get_or_create(&handled).inc();
        result.map(Response::new)
    }
}

/// What Go calls the codes that we use.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::PermissionDenied => "PermissionDenied",
        Code::Unavailable => "Unavailable",
        _ => "Unknown",
    }
}

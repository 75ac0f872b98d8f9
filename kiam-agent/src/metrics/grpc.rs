//! Calls to the server, under the names that grpc-prometheus gives them in kiam.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::Code;

/// A method of `kiam.KiamService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    PodRole,
    PodCredentials,
    Health,
}

impl Rpc {
    fn labels(self) -> MethodLabels {
        let grpc_method = match self {
            Self::PodRole => "GetPodRole",
            Self::PodCredentials => "GetPodCredentials",
            Self::Health => "GetHealth",
        };
        MethodLabels { grpc_type: "unary", grpc_service: "kiam.KiamService", grpc_method }
    }
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

/// `grpc_client_…`.
pub(super) struct Grpc {
    started: Family<MethodLabels, Counter>,
    handled: Family<HandledLabels, Counter>,
    sent: Family<MethodLabels, Counter>,
    received: Family<MethodLabels, Counter>,
}

impl Grpc {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let grpc = Self {
            started: Family::default(),
            handled: Family::default(),
            sent: Family::default(),
            received: Family::default(),
        };
        let client = registry.sub_registry_with_prefix("grpc_client");
        client.register("started", "Calls begun", grpc.started.clone());
        client.register("handled", "Calls ended, by their code", grpc.handled.clone());
        client.register("msg_sent", "Requests sent", grpc.sent.clone());
        client.register("msg_received", "Answers received", grpc.received.clone());
        grpc
    }

    pub(super) fn started(&self, rpc: Rpc) {
        self.started.get_or_create(&rpc.labels()).inc();
        self.sent.get_or_create(&rpc.labels()).inc();
    }

    pub(super) fn handled(&self, rpc: Rpc, code: Code) {
        let MethodLabels { grpc_type, grpc_service, grpc_method } = rpc.labels();
        if code == Code::Ok {
            self.received.get_or_create(&rpc.labels()).inc();
        }
        let labels = HandledLabels { grpc_type, grpc_service, grpc_method, grpc_code: name(code) };
        self.handled.get_or_create(&labels).inc();
    }
}

/// The name of a code as Go's gRPC has it.
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

//! Names, labels and values of the metrics.

use super::*;
use crate::report::{Condition, Notice, PacketCount, ProbeResult, Status};
use tokio::sync::watch;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

#[test]
fn metrics_have_kiams_names() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.answered(Handler::RoleName, 200, Duration::from_millis(3), None);
    metrics.answered(Handler::Proxy, 404, Duration::from_millis(1), Some("blocked"));
    metrics.role_failed();
    metrics.role_empty();
    metrics.credentials_failed();
    metrics.path_blocked();
    metrics.rpc_started(Rpc::PodRole);
    metrics.rpc_handled(Rpc::PodRole, Code::Ok);
    let text = text(&registry);
    for line in [
        r#"kiam_metadata_handler_latency_seconds_bucket{le="0.004",handler="roleName"} 1"#,
        r#"kiam_metadata_handler_latency_seconds_bucket{le="4.096",handler="roleName"} 1"#,
        r#"kiam_metadata_success_total{handler="roleName"} 1"#,
        r#"kiam_metadata_responses_total{handler="proxy",code="404"} 1"#,
        r#"kiam_metadata_find_role_errors_total{handler="roleName"} 1"#,
        r#"kiam_metadata_empty_role_total{handler="roleName"} 1"#,
        r#"kiam_metadata_credential_fetch_errors_total{handler="credentials"} 1"#,
        "kiam_metadata_proxy_requests_blocked_total 1",
        r#"kiam_agent_refusals_total{reason="blocked"} 1"#,
        r#"grpc_client_handled_total{grpc_type="unary",grpc_service="kiam.KiamService",grpc_method="GetPodRole",grpc_code="OK"} 1"#,
        r#"grpc_client_msg_received_total{grpc_type="unary",grpc_service="kiam.KiamService",grpc_method="GetPodRole"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
    }
}

#[test]
fn datapath_metrics_follow_the_parent() {
    let (sender, receiver) = watch::channel(Status::default());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Datapath::new(receiver)));
    let packet =
        |interface: &str, packets| PacketCount { interface: interface.into(), reason: "listener".into(), packets };
    sender.send_replace(Status {
        conditions: vec![Condition { name: "fence-ipv4".into(), problem: Some("gone".into()) }],
        packets: vec![packet("cali1", 5), packet("", 2)],
        repairs: [("route".to_owned(), 2)].into(),
        notices: ["foreign-program", "sr-iov", "foreign-program"]
            .map(|about| Notice { about: about.into(), text: String::new() })
            .into(),
        probes: vec![ProbeResult { family: "IPv4".into(), answered: true }],
        worker_starts: 3,
        fallback_answers: 4,
    });
    let first = text(&registry);
    for line in [
        r#"kiam_agent_packets_total{interface="cali1",reason="listener"} 5"#,
        r#"kiam_agent_packets_total{interface="",reason="listener"} 2"#,
        r#"kiam_agent_condition{condition="fence-ipv4"} 0"#,
        r#"kiam_agent_repairs_total{what="route"} 2"#,
        r#"kiam_agent_notices{about="foreign-program"} 2"#,
        r#"kiam_agent_probe_answered{family="IPv4"} 1"#,
        "kiam_agent_worker_starts_total 3",
        "kiam_agent_fallback_answers_total 4",
    ] {
        assert!(first.lines().any(|found| found == line), "{line}\nnot in\n{first}");
    }
    sender.send_replace(Status { packets: vec![packet("cali2", 1)], ..Status::default() });
    assert!(!text(&registry).contains("cali1"));
}

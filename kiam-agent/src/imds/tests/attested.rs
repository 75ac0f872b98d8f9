//! Attribution of connections whose cgroup the kernel reports.

use super::*;
use crate::attestation::PodUid;
use kiam_common::abi::BY_HOOK_POD;

const RED: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";
const BLUE: &str = "11111111-2222-4333-8444-bbbbbbbbbbbb";
const STATIC: &str = "0123456789abcdef0123456789abcdef";

fn owned_by(uid: &str) -> SocketOwner {
    SocketOwner::Pod(PodUid::parse(uid).unwrap())
}

async fn exchange(stream: &mut TcpStream, request: &str) -> Reply {
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    one(stream).await
}

#[tokio::test]
async fn unattributable_peer_gets_a_token_but_no_role() {
    let open = open(ImdsV1::Allow).await;
    for (owner, reason) in [
        (SocketOwner::NotAPod, "not-a-pod"),
        (SocketOwner::NoRecord, "no-record"),
        (SocketOwner::Several, "several-records"),
        (owned_by(STATIC), "static-pod"),
    ] {
        open.ingress.opened_by(owner);
        for path in [SC.to_owned(), format!("{SC}/role-a")] {
            let reply = open.get(PERMITTED, &path).await;
            assert_eq!(reply.status, 403, "{owner:?}: {reply:?}");
            assert!(reply.body.contains("belongs to no known pod"), "{owner:?}: {}", reply.body);
        }
        let counted = format!(r#"kiam_agent_refusals_total{{reason="{reason}"}} 2"#);
        assert!(open.metrics().contains(&counted), "{counted}\n{}", open.metrics());
        assert!(!open.token(PERMITTED, 60).await.is_empty(), "tokens depend on nothing");
    }
}

/// Without an answer of the parent the client gets an error and is to retry.
#[tokio::test]
async fn silent_parent_is_a_503_with_retry_after() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.kernel().origin = None;
    let reply = open.get(PERMITTED, SC).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert!(!open.token(PERMITTED, 60).await.is_empty(), "tokens depend on nothing");
}

/// A connection keeps its pod: the parent is asked once, not for each request.
#[tokio::test]
async fn connection_is_attested_once_for_its_life() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.opened_by(owned_by(RED));
    let mut stream = open.connect(PERMITTED).await;
    let port = stream.local_addr().unwrap().port();
    assert_eq!(exchange(&mut stream, &format!("GET {SC}")).await.body, "role-a");
    open.ingress.opened_by(SocketOwner::NotAPod);
    assert_eq!(exchange(&mut stream, &format!("GET {SC}")).await.body, "role-a");
    assert_eq!(open.ingress.kernel().questions, [Question::new(INTERFACE, PERMITTED.into(), port)]);
}

/// A connection to the hook listener without a record of a pod is closed before a byte is read.
#[tokio::test]
async fn hook_connection_without_record_is_closed_unread() {
    let open = open(ImdsV1::Allow).await;
    for (count, hook) in [(1, BY_HOOK_NODE), (2, BY_HOOK_POD)] {
        for origin in [None, Some(SocketOwner::NoRecord), Some(SocketOwner::NotAPod)] {
            open.ingress.kernel().arrived_by = Some(ArrivedBy::Hook(hook));
            open.ingress.kernel().origin = origin.map(|owner| Origin { interface: 0, kubepods: true, owner });
            let mut stream = open.connect(PERMITTED).await;
            let mut bytes = Vec::new();
            let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
            assert!(matches!(read, Ok(0)), "{hook} {origin:?}: {read:?}");
        }
        let counted = format!(r#"kiam_agent_connections_ended_total{{reason="no-record"}} {}"#, 3 * count);
        assert!(open.metrics().contains(&counted), "{counted}\n{}", open.metrics());
    }
}

#[tokio::test]
async fn host_network_pods_are_distinguished_by_uid() {
    let open = open(ImdsV1::Deny).await;
    open.ingress.kernel().arrived_by = Some(ArrivedBy::Hook(BY_HOOK_NODE));
    let mut tokens = Vec::new();
    for uid in [RED, BLUE] {
        open.ingress.opened_by(owned_by(uid));
        tokens.push(open.token(PERMITTED, 60).await);
    }
    for (uid, own, other) in [(RED, 0, 1), (BLUE, 1, 0)] {
        open.ingress.opened_by(owned_by(uid));
        let header = format!("X-aws-ec2-metadata-token: {}", tokens[own]);
        // A pod has no address of its own there, so it may use any.
        let reply = open.request(OTHER, "GET", SC, &header).await;
        assert_eq!(reply.body, format!("role-of-{uid}"));
        let header = format!("X-aws-ec2-metadata-token: {}", tokens[other]);
        assert_eq!(open.request(PERMITTED, "GET", SC, &header).await.status, 401, "another pod's token");
    }
    open.ingress.opened_by(owned_by(STATIC));
    let token = open.token(PERMITTED, 60).await;
    let reply = open.request(PERMITTED, "GET", SC, &format!("X-aws-ec2-metadata-token: {token}")).await;
    assert_eq!(reply.status, 403, "a static pod: {reply:?}");
}

/// Delay of the answer of a busy parent.
const ANSWER_DELAY: Duration = Duration::from_millis(400);

/// A stop waits for connections whose pod is still being looked up.
#[tokio::test]
async fn stop_waits_for_pending_attestations() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.kernel().arrived_by = Some(ArrivedBy::Hook(BY_HOOK_NODE));
    open.ingress.opened_by(owned_by(RED));
    open.ingress.kernel().delay = ANSWER_DELAY;
    let mut stream = open.connect(PERMITTED).await;
    let accepted = timeout(PATIENCE, async {
        while open.ingress.kernel().questions.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    accepted.await.unwrap();
    let begin = Instant::now();
    // The worker exits when the stop returns.
    let stopped = async {
        open.server.stop(PATIENCE).await;
        begin.elapsed()
    };
    let head = format!("GET {SC}");
    let (stopped, reply) = tokio::join!(stopped, exchange(&mut stream, &head));
    assert_eq!(reply.body, format!("role-of-{RED}"));
    assert!(stopped >= ANSWER_DELAY / 2, "it did not wait: {stopped:?}");
}

#[tokio::test]
async fn host_network_pods_have_their_own_limits() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.kernel().arrived_by = Some(ArrivedBy::Hook(BY_HOOK_NODE));
    open.ingress.opened_by(owned_by(RED));
    let mut held = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_POD_MAX {
        let mut stream = open.connect(PERMITTED).await;
        assert_eq!(exchange(&mut stream, &format!("GET {SC}")).await.status, 200);
        held.push(stream);
    }
    assert_eq!(open.get(PERMITTED, SC).await.status, 429);
    open.ingress.opened_by(owned_by(BLUE));
    assert_eq!(open.get(PERMITTED, SC).await.status, 200, "another pod at the same address");
}

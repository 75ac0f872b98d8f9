//! The client against real servers over mutual TLS, which answer by the pod's address.

mod server;

use super::*;
use crate::{attestation::PodUid, config::UpstreamConfig, source::AttestedPod};
use kiam_common::flags::ServerAddress;
use prometheus_client::registry::Registry;
use server::{Pki, Server};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Time limit for steps that should not take long.
const PATIENCE: Duration = Duration::from_secs(10);
const BUDGET: Duration = Duration::from_millis(900);

/// The client side.
struct Agent {
    upstream: Upstream,
    reached: watch::Receiver<bool>,
    registry: Registry,
    running: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Starts an agent for which `kiam-server` resolves to these addresses.
fn agent(pki: &Pki, addresses: &[SocketAddr]) -> Agent {
    let config = UpstreamConfig {
        server: ServerAddress { host: "kiam-server".into(), port: 443 },
        tls: pki.agent_files(),
        keepalive_time: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(300),
    };
    let tls = kiam_common::tls::Client::load(&config.tls).unwrap();
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let addresses = addresses.to_vec();
    let lookup = Box::new(move || -> futures::future::BoxFuture<'static, _> {
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    });
    let connector = Connector::with(config, tls, Arc::clone(&metrics), lookup).unwrap();
    let upstream = Upstream::new(&connector, metrics);
    let reached = connector.reached();
    Agent { upstream, reached, registry, running: tokio::spawn(connector.run()) }
}

impl Agent {
    async fn role(&self, caller: Caller) -> Result<Found<String>, SourceError> {
        let begin = Instant::now();
        let result = self.upstream.role(caller, begin + BUDGET).await;
        assert!(begin.elapsed() < BUDGET + Duration::from_millis(300), "{:?}", begin.elapsed());
        result
    }

    /// Sends requests until a server answers.
    async fn until_served(&self) -> Found<String> {
        let served = async {
            loop {
                match self.role(pod("10.0.0.1")).await {
                    Ok(found) => return found,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, served).await.expect("never served")
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Returns a pod behind an interface that is older than the agent.
fn pod(address: &str) -> Caller {
    Caller { address: Some(address.parse().unwrap()), pod: None, interface_first_seen_ms: None }
}

/// Returns a pod behind an interface of this age.
fn young(address: &str, age_ms: u64) -> Caller {
    Caller { interface_first_seen_ms: Some(clock::monotonic_ms() - age_ms), ..pod(address) }
}

#[tokio::test]
async fn role_and_credentials() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    let Found { value, pod: found } = agent.role(pod("10.0.0.1")).await.unwrap();
    assert_eq!((value.as_str(), found.unwrap().name.as_str()), ("role-a", "pod-a"));
    assert!(*agent.reached.borrow());
    let deadline = Instant::now() + BUDGET;
    let found = agent.upstream.credentials(pod("fd00::1"), "role-a", deadline).await.unwrap();
    assert_eq!(found.value.access_key_id, "ASIAEXAMPLE");
    assert_eq!(server.requests().last().unwrap().ip, "fd00::1", "as Kubernetes writes it");
    let metrics = agent.metrics();
    for line in [
        "kiam_agent_server_connected 1",
        r#"grpc_client_handled_total{grpc_type="unary",grpc_service="kiam.KiamService",grpc_method="GetPodRole",grpc_code="OK"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\nnot in\n{metrics}");
    }
}

/// The server gets the interface age, the pod UID and the time that it may wait.
#[tokio::test]
async fn request_carries_age_uid_and_wait() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    agent.until_served().await;
    agent.role(young("10.0.0.1", 60_000)).await.unwrap();
    let requests = server.requests();
    let caller = requests.last().unwrap().caller.clone().unwrap();
    assert!((60_000..61_000).contains(&caller.interface_age_ms.unwrap()), "{caller:?}");
    assert!((600..=800).contains(&caller.wait_ms), "{caller:?}");
    let first = requests[0].caller.as_ref().unwrap();
    assert_eq!((first.interface_age_ms, first.pod_uid.as_deref()), (None, None));

    let uid = "11111111-2222-4333-8444-aaaaaaaaaaaa";
    let attested = Some(AttestedPod { uid: PodUid::parse(uid).unwrap(), must_match: true });
    let on_the_node = Caller { address: None, pod: attested, interface_first_seen_ms: None };
    drop(agent.role(on_the_node).await);
    drop(agent.role(Caller { pod: attested, ..pod("10.0.0.1") }).await);
    // Both are retried until their deadline: this server answers with another pod.
    let mut sent: Vec<_> =
        server.requests().into_iter().map(|request| (request.ip, request.caller.unwrap().pod_uid)).collect();
    sent.dedup();
    assert_eq!(sent[sent.len() - 2..], ["", "10.0.0.1"].map(|ip| (ip.to_owned(), Some(uid.to_owned()))));
}

#[tokio::test]
async fn kiam_server_errors_over_the_wire() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    for (address, wanted) in [
        ("10.0.1.1", "NotKnownYet"),
        ("10.0.1.2", "Ambiguous"),
        ("10.0.1.3", "Forbidden"),
        ("10.0.1.4", "Upstream { message: \"AccessDenied\" }"),
    ] {
        assert_eq!(format!("{:?}", agent.role(pod(address)).await.unwrap_err()), wanted, "{address}");
    }
    assert_eq!(agent.role(pod("10.0.1.9")).await.unwrap().value, "", "a pod without a role");
}

#[tokio::test]
async fn unknown_pod_is_retried_with_backoff() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    agent.until_served().await;
    // The server knows this pod from the fourth request on.
    let found = agent.role(pod("10.0.2.4")).await.unwrap();
    assert_eq!(found.value, "role-a");
    let count = |address: &str| server.requests().iter().filter(|request| request.ip == address).count();
    assert_eq!(count("10.0.2.4"), 4);

    let begin = Instant::now();
    assert!(matches!(agent.role(pod("10.0.1.1")).await, Err(SourceError::NotKnownYet)));
    assert!(begin.elapsed() > BUDGET / 2, "{:?}", begin.elapsed());
    assert!((4..=20).contains(&count("10.0.1.1")), "{}", count("10.0.1.1"));
}

/// A pod older than its interface is refused, and so is a server that cannot report the age.
#[tokio::test]
async fn pod_older_than_its_interface_is_refused() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    // The server has seen this pod for 5 s.
    assert!(agent.role(pod("10.0.3.1")).await.is_ok());
    assert!(agent.role(young("10.0.3.1", 6_000)).await.is_ok());
    assert!(matches!(agent.role(young("10.0.3.1", 1_000)).await, Err(SourceError::Stale)));
    // kiam's server does not report it.
    assert!(agent.role(pod("10.0.3.2")).await.is_ok());
    assert!(matches!(agent.role(young("10.0.3.2", 6_000)).await, Err(SourceError::Unverified)));
}

/// Without a server requests fail fast; the agent stays up and connects when one appears.
#[tokio::test]
async fn without_a_server_requests_fail_fast() {
    let pki = Pki::new();
    // Reserves the port until the server starts.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseport(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap();
    let agent = agent(&pki, &[address]);
    assert!(matches!(agent.role(pod("10.0.0.1")).await, Err(SourceError::Unreachable)));
    let begin = Instant::now();
    assert!(matches!(agent.role(pod("10.0.0.1")).await, Err(SourceError::Unreachable)));
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    assert!(!*agent.reached.borrow());

    let _server = Server::start(&pki, &address.to_string()).await;
    agent.until_served().await;
    assert!(*agent.reached.borrow());
}

#[tokio::test]
async fn lost_server_is_replaced_within_a_request() {
    let pki = Pki::new();
    let first = Server::start(&pki, "127.0.0.1:0").await;
    let second = Server::start(&pki, "127.0.0.2:0").await;
    let agent = agent(&pki, &[first.address, second.address]);
    agent.until_served().await;
    for _ in 0..10 {
        let (used, other) = if first.requests().is_empty() { (&second, &first) } else { (&first, &second) };
        let before = other.requests().len();
        used.cut();
        // No request fails: the end of the connection is noticed, or the call is retried.
        agent.role(pod("10.0.0.1")).await.unwrap();
        assert_eq!(other.requests().len(), before + 1, "the lost server is not tried first");
        used.forget();
    }
}

/// Calls that fail on a good connection are retried, with backoff and without a reconnection.
#[tokio::test]
async fn failed_calls_are_retried_with_backoff() {
    let pki = Pki::new();
    let server = Server::start(&pki, "127.0.0.1:0").await;
    let agent = agent(&pki, &[server.address]);
    agent.until_served().await;
    server.reset_calls(true);
    let begin = Instant::now();
    assert!(matches!(agent.role(pod("10.0.0.1")).await, Err(SourceError::Unreachable)));
    assert!(begin.elapsed() > BUDGET / 2, "{:?}", begin.elapsed());
    let tries = server.resets();
    assert!((3..=20).contains(&tries), "{tries}");
    server.reset_calls(false);
    agent.role(pod("10.0.0.1")).await.unwrap();
    assert!(agent.metrics().contains("kiam_agent_server_connects_total 1"), "the connection was fine all the time");
}

#[tokio::test]
async fn silent_server_is_abandoned() {
    let pki = Pki::new();
    let servers = [Server::start(&pki, "127.0.0.1:0").await, Server::start(&pki, "127.0.0.2:0").await];
    let agent = agent(&pki, &[servers[0].address, servers[1].address]);
    agent.until_served().await;
    let used = usize::from(servers[0].requests().is_empty());
    servers[used].silence();
    // The silence is noticed without a request of a pod.
    let moved = async {
        while !agent.metrics().contains("kiam_agent_server_connects_total 2") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(3), moved).await.expect("the agent does not notice");
    assert_eq!(agent.role(pod("10.0.0.1")).await.unwrap().value, "role-a");
    assert!(!servers[1 - used].requests().is_empty());
}

#[tokio::test]
async fn servers_with_wrong_certificates_are_refused() {
    let pki = Pki::new();
    for (what, server) in [
        ("another authority", Server::start(&Pki::new(), "127.0.0.1:0").await),
        ("another name", Server::start(&pki.with_name("other-server"), "127.0.0.1:0").await),
    ] {
        let agent = agent(&pki, &[server.address]);
        assert!(matches!(agent.role(pod("10.0.0.1")).await, Err(SourceError::Unreachable)), "{what}");
        assert!(server.requests().is_empty(), "{what}");
        assert!(!*agent.reached.borrow());
    }
}

/// A server that does not trust the certificate of the agent does not count as reached.
#[tokio::test]
async fn server_that_refuses_our_certificate_is_unreached() {
    let (trusted, stranger) = (Pki::new(), Pki::new());
    let server = Server::start(&trusted, "127.0.0.1:0").await;
    // The server's certificate is fine; the agent's own comes from elsewhere.
    let agent = agent(&trusted.with_agent_of(&stranger), &[server.address]);
    assert!(matches!(agent.role(pod("10.0.0.1")).await, Err(SourceError::Unreachable)));
    assert!(!*agent.reached.borrow() && server.requests().is_empty());
}

//! The IMDS server with real bytes over loopback. A pod is an address of 127.0.0.0/8, and the source is scripted.

mod attested;
mod contract;
mod crowd;
mod hostile;
mod lifecycle;
mod slow;

use super::*;
use crate::{
    attestation::Origin,
    config::Attestation,
    report::{Interface, InterfaceKind},
    source::{Caller, Credentials, Found, Pod, SourceError},
};
use kiam_common::secret::Secret;
use prometheus_client::registry::Registry;
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    task::JoinHandle,
    time::Instant,
};

const SC: &str = "/latest/meta-data/iam/security-credentials";
/// The interface of the pods, unless a test sets another.
const INTERFACE: u32 = 3;
/// Time limit for steps that should not take long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the address of a pod; its last byte selects the answer of [`Script`].
const fn pod(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, last)
}

const PERMITTED: Ipv4Addr = pod(1);
const OTHER: Ipv4Addr = pod(2);
const NO_ROLE: Ipv4Addr = pod(3);
const SLASHED: Ipv4Addr = pod(4);
const SLOW: Ipv4Addr = pod(5);

/// A source that answers by the caller's address: with an error from 100 on.
struct Script;

/// Returns every error of a source; [`Script`] returns each at the address `pod(100 + index)`.
fn errors() -> Vec<SourceError> {
    vec![
        SourceError::NotKnownYet,
        SourceError::Stale,
        SourceError::Contradiction,
        SourceError::Ambiguous,
        SourceError::Unverified,
        SourceError::NoRole,
        SourceError::Forbidden,
        SourceError::Upstream { message: "AccessDenied: not authorized".into() },
        SourceError::Unusable { what: "the credentials have expired" },
        SourceError::Unreachable,
        SourceError::TimedOut,
    ]
}

fn scripted(caller: Caller) -> Result<(), SourceError> {
    let Some(IpAddr::V4(address)) = caller.address else { return Ok(()) };
    let index = usize::from(address.octets()[3]);
    if index < 100 { Ok(()) } else { Err(errors().remove(index - 100)) }
}

fn found<T>(value: T) -> Found<T> {
    Found { value, pod: Some(Pod { namespace: "default".into(), name: "pod-a".into() }) }
}

impl CredentialSource for Script {
    async fn role(&self, caller: Caller, _deadline: Instant) -> Result<Found<String>, SourceError> {
        scripted(caller)?;
        if caller.address == Some(IpAddr::V4(SLOW)) {
            sleep(Duration::from_millis(400)).await;
        }
        Ok(found(match (caller.address, caller.pod) {
            (None, Some(pod)) => format!("role-of-{}", pod.uid),
            (Some(IpAddr::V4(NO_ROLE)), _) => String::new(),
            (Some(IpAddr::V4(SLASHED)), _) => "/team/role-d".to_owned(),
            _ => "role-a".to_owned(),
        }))
    }

    async fn credentials(
        &self,
        caller: Caller,
        role: &str,
        _deadline: Instant,
    ) -> Result<Found<Credentials>, SourceError> {
        scripted(caller)?;
        if caller.address == Some(IpAddr::V4(NO_ROLE)) {
            return Err(SourceError::NoRole);
        }
        if !matches!(role, "role-a" | "team/role-d" | "arn:aws:iam::123456789012:role/role-a") {
            return Err(SourceError::Forbidden);
        }
        Ok(found(Credentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new("SECRETKEY".into()),
            session_token: Secret::new("SESSIONTOKEN".into()),
            expiration: "2026-11-21T09:16:34Z".parse().unwrap(),
            last_updated: "2026-11-21T08:16:34Z".parse().unwrap(),
        }))
    }
}

/// The document of the credentials of [`Script`].
const DOCUMENT: &str = concat!(
    r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"SECRETKEY","#,
    r#""Token":"SESSIONTOKEN","Expiration":"2026-11-21T09:16:34Z","LastUpdated":"2026-11-21T08:16:34Z"}"#,
    "\n"
);

/// A kernel with scripted evidence, and the number of accepted connections.
#[derive(Clone)]
struct FakeIngress(Arc<Mutex<Kernel>>, Arc<AtomicUsize>);

struct Kernel {
    arrived_by: Option<ArrivedBy>,
    interface: u32,
    /// Origin of the next connections.
    origin: Option<Origin>,
    /// Delay of an attestation.
    delay: Duration,
    questions: Vec<Question>,
}

impl FakeIngress {
    /// Returns the kernel of a node with pods in version 1 hierarchies.
    fn new() -> Self {
        let origin = Some(Origin { interface: INTERFACE, kubepods: false, owner: SocketOwner::NotAPod });
        let (arrived_by, delay) = (Some(ArrivedBy::Interface), Duration::ZERO);
        let kernel = Kernel { arrived_by, interface: INTERFACE, origin, delay, questions: Vec::new() };
        Self(Arc::new(Mutex::new(kernel)), Arc::default())
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    /// Sets the owner of the next connections.
    fn opened_by(&self, owner: SocketOwner) {
        self.kernel().origin = Some(Origin { interface: INTERFACE, kubepods: true, owner });
    }
}

impl Ingress for FakeIngress {
    fn arrived_by(&self, _local: SocketAddr) -> Option<ArrivedBy> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.kernel().arrived_by
    }

    fn interface(&self, _connection: &TcpStream) -> io::Result<u32> {
        Ok(self.kernel().interface)
    }

    fn attest(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static {
        let mut kernel = self.kernel();
        kernel.questions.push(question);
        let (delay, origin) = (kernel.delay, kernel.origin);
        async move {
            sleep(delay).await;
            origin
        }
    }
}

/// A server that accepts connections.
struct Open {
    address: SocketAddr,
    server: Arc<ImdsServer<Script>>,
    ingress: FakeIngress,
    interfaces: watch::Sender<Arc<Interfaces>>,
    registry: Registry,
    accepting: JoinHandle<()>,
}

fn known(indexes: &[u32]) -> Arc<Interfaces> {
    let interface = |index: &u32| Interface {
        index: *index,
        name: format!("cali{index}"),
        first_seen_ms: None,
        bridge: None,
        kind: InterfaceKind::Veth,
    };
    Arc::new(Interfaces::new(&indexes.iter().map(interface).collect::<Vec<_>>()))
}

async fn open(v1: ImdsV1) -> Open {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (interfaces, known_interfaces) = watch::channel(known(&[INTERFACE]));
    let ingress = FakeIngress::new();
    let mut registry = Registry::default();
    let attribution = Attribution::new(Attestation::Prefer, known_interfaces);
    let tokens = Tokens::new(&Secret::new([7; 32]), boot_id().unwrap()).unwrap();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let server = ImdsServer::new(Script, attribution, tokens, v1, metrics);
    let accepting = tokio::spawn({
        let (server, ingress) = (Arc::clone(&server), ingress.clone());
        async move { server.accept_from(listener, &ingress, false).await }
    });
    Open { address, server, ingress, interfaces, registry, accepting }
}

impl Open {
    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends the bytes on a new connection and reads until its end.
    async fn raw(&self, from: Ipv4Addr, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect(from).await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// Sends one request with `Connection: close`; `headers` is without the last line break.
    async fn request(&self, from: Ipv4Addr, method: &str, target: &str, headers: &str) -> Reply {
        let end = if headers.is_empty() { "" } else { "\r\n" };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n{headers}{end}\r\n");
        Reply::parse(&self.raw(from, request).await)
    }

    async fn get(&self, from: Ipv4Addr, target: &str) -> Reply {
        self.request(from, "GET", target, "").await
    }

    async fn token(&self, from: Ipv4Addr, ttl: u32) -> String {
        let header = format!("X-aws-ec2-metadata-token-ttl-seconds: {ttl}");
        let reply = self.request(from, "PUT", "/latest/api/token", &header).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Reads until the end of the connection, which must be orderly.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads one answer with a length from a connection that stays open.
async fn one(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8(bytes.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Some(length) = Reply::parse(&format!("{head}\r\n\r\n")).header("content-length")
                && body.len() >= length.parse().unwrap()
            {
                return Reply::parse(&text);
            }
            bytes.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, reading).await.expect("no answer")
}

/// A parsed answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self { status, headers: lines.map(|line| header(line).unwrap()).collect(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

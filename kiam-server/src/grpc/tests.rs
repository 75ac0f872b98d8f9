//! The wire format: the bytes of every message of kiam v4, and whole exchanges over mutual TLS.

use super::*;
use crate::core::{
    credentials::{Credentials, Identity},
    ids::PodUid,
    lookup::{Found, LookupError, Origin, Query},
    namespace::{Anchoring, NamespaceFacts, Permitted},
    notice::Notice,
    pod::PodFacts,
    policy::Policy,
    provider::CredentialError,
    role::RoleBase,
    session::SessionName,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming as Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kiam_common::{
    proto,
    rpc_metrics::RpcMetrics,
    secret::Secret,
    tls::{self, Side, TlsFiles},
};
use prometheus_client::registry::Registry;
use prost::Message as _;
use rustls::pki_types::ServerName;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

/// Directory with the certificates of kiam's guide.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiam-common/src/tls/testdata");

/// Fields 1 to 7 with short texts: tag, length, bytes (protobuf encoding guide).
#[test]
fn messages_are_those_of_kiam_v4() {
    let role = proto::GetPodRoleRequest { ip: "10.0.0.1".to_owned(), caller: None };
    assert_eq!(role.encode_to_vec(), b"\x0a\x0810.0.0.1");
    let ask = proto::GetPodCredentialsRequest { ip: "10.0.0.1".to_owned(), role: "red".to_owned(), caller: None };
    assert_eq!(ask.encode_to_vec(), b"\x0a\x0810.0.0.1\x12\x03red");
    assert_eq!(proto::GetHealthRequest {}.encode_to_vec(), b"");
    assert_eq!(proto::Role { name: "red".to_owned(), seen: None }.encode_to_vec(), b"\x0a\x03red");
    assert_eq!(proto::Role::default().encode_to_vec(), b"", "no role is an empty message");
    assert_eq!(proto::HealthStatus { message: "ok".to_owned() }.encode_to_vec(), b"\x0a\x02ok");
    let credentials = proto::Credentials {
        code: "1".to_owned(),
        r#type: "2".to_owned(),
        access_key_id: "3".to_owned(),
        secret_access_key: "4".to_owned(),
        token: "5".to_owned(),
        expiration: "6".to_owned(),
        last_updated: "7".to_owned(),
        seen: None,
    };
    assert_eq!(credentials.encode_to_vec(), b"\x0a\x011\x12\x012\x1a\x013\x22\x014\x2a\x015\x32\x016\x3a\x017");
}

/// Field 100 has the tag `a2 06`; kiam skips it.
#[test]
fn fields_added_to_kiams_messages() {
    let caller = Some(proto::Caller { interface_age_ms: Some(300), wait_ms: 900, pod_uid: Some("u".to_owned()) });
    let role = proto::GetPodRoleRequest { ip: "::1".to_owned(), caller };
    assert_eq!(role.encode_to_vec(), b"\x0a\x03::1\xa2\x06\x09\x08\xac\x02\x10\x84\x07\x1a\x01u");
    let caller = Some(proto::Caller { interface_age_ms: None, wait_ms: 0, pod_uid: None });
    let role = proto::GetPodRoleRequest { ip: "::1".to_owned(), caller };
    assert_eq!(role.encode_to_vec(), b"\x0a\x03::1\xa2\x06\x00");
    let seen =
        proto::Seen { pod_namespace: "n".to_owned(), pod_name: "p".to_owned(), pod_uid: "u".to_owned(), for_ms: 1 };
    let role = proto::Role { name: "red".to_owned(), seen: Some(seen) };
    assert_eq!(role.encode_to_vec(), b"\x0a\x03red\xa2\x06\x0b\x0a\x01n\x12\x01p\x1a\x01u\x20\x01");
}

struct OnePod;

impl PodLookup for OnePod {
    fn is_synced(&self) -> bool {
        true
    }

    async fn find(&self, query: Query) -> Result<Found, LookupError> {
        let Origin::Address(address) = query.origin else { return Err(LookupError::NotFound) };
        if address.to_string() != "10.0.0.1" {
            return Err(LookupError::NotFound);
        }
        let pod = PodFacts {
            uid: PodUid::parse("u").ok_or(LookupError::NotFound)?,
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            addresses: vec![address],
            on_node_network: false,
            active: true,
            node: String::new(),
            role: Some("red".to_owned()),
            session_name: None,
            external_id: None,
        };
        let permitted = Permitted::compile(".*", Anchoring::Strict);
        let namespace = Some(Arc::new(NamespaceFacts { name: "n".to_owned(), permitted }));
        Ok(Found { pod: Arc::new(pod), namespace, seen_for: Duration::from_millis(1) })
    }
}

struct Fixed;

impl CredentialSource for Fixed {
    async fn credentials(&self, _: &Identity) -> Result<Arc<Credentials>, CredentialError> {
        Ok(Arc::new(Credentials {
            access_key_id: "A".to_owned(),
            secret_access_key: Secret::new("S".to_owned()),
            session_token: Secret::new("T".to_owned()),
            issued: "2026-01-02T03:04:05Z".parse().unwrap(),
            expires: "2026-01-02T04:04:05Z".parse().unwrap(),
        }))
    }
}

struct Silent;

impl NoticeSink for Silent {
    fn notify(&self, _: &Arc<PodFacts>, _: Notice) {}
}

struct TestServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

async fn start() -> TestServer {
    let tls = tls::Server::load(&files("server")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (incoming, accept) = accept(listener, tls);
    tokio::spawn(accept);
    let service = Kiam {
        pods: Arc::new(OnePod),
        credentials: Fixed,
        notices: Arc::new(Silent),
        policy: Arc::new(Policy {
            role_base: RoleBase::parse("arn:aws:iam::123456789012:role/").unwrap(),
            default_session: SessionName::parse("kiam").unwrap(),
        }),
        metrics: RpcMetrics::register(Side::Server, &mut Registry::default()),
    };
    let settings = ConnectionSettings {
        keepalive_time: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(2),
        age: Duration::from_secs(900),
        age_grace: Duration::from_secs(900),
    };
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(serve(service, incoming, settings, async { drop(stopped.await) }));
    TestServer { address, stop, ended }
}

fn files(name: &str) -> TlsFiles {
    let folder = Path::new(CERTIFICATES);
    TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}-key.pem")),
    }
}

/// Sends one message byte for byte, as an agent does. Returns body, gRPC status and message of the response.
async fn exchange(address: SocketAddr, method: &str, message: &[u8]) -> (Bytes, String, String) {
    let tls = tls::Client::load(&files("agent")).unwrap().config();
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(tls).connect(ServerName::try_from("kiam-server").unwrap(), tcp).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0], &length[..], message].concat();
    let request = Request::post(format!("https://kiam-server/kiam.KiamService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .unwrap();
    let response: Response<Body> = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let header = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    (collected.to_bytes(), header("grpc-status"), header("grpc-message"))
}

fn ok(body: &'static [u8]) -> (Bytes, String, String) {
    (Bytes::from_static(body), "0".to_owned(), String::new())
}

fn failed(status: &str, message: &str) -> (Bytes, String, String) {
    (Bytes::new(), status.to_owned(), message.to_owned())
}

#[tokio::test]
async fn whole_exchanges() {
    let server = start().await;
    let call = async |method: &str, message: &'static [u8]| exchange(server.address, method, message).await;
    assert_eq!(call("GetHealth", b"").await, ok(b"\0\0\0\0\x04\x0a\x02ok"));
    assert_eq!(call("GetPodRole", b"\x0a\x0810.0.0.1").await, ok(b"\0\0\0\0\x05\x0a\x03red"));
    assert_eq!(
        call("GetPodRole", b"\x0a\x0810.0.0.1\xa2\x06\x00").await,
        ok(b"\0\0\0\0\x13\x0a\x03red\xa2\x06\x0b\x0a\x01n\x12\x01p\x1a\x01u\x20\x01")
    );
    assert_eq!(
        call("GetPodCredentials", b"\x0a\x0810.0.0.1\x12\x03red").await,
        ok(b"\0\0\0\0\x48\x0a\x07Success\x12\x08AWS-HMAC\x1a\x01A\x22\x01S\x2a\x01T\
             \x32\x142026-01-02T04:04:05Z\x3a\x142026-01-02T03:04:05Z")
    );
    assert_eq!(call("GetPodRole", b"\x0a\x0810.0.0.2").await, failed("2", "pod%20not%20found"));
    assert_eq!(
        call("GetPodCredentials", b"\x0a\x0810.0.0.1\x12\x04blue").await,
        failed("2", "forbidden%20by%20policy")
    );
    assert_eq!(call("GetPodCredentials", b"\x0a\x0810.0.0.2\x12\x01x").await, failed("2", "no%20pod%20found"));
    assert_eq!(call("Nonsense", b"").await.1, "12");
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_long_message_is_refused() {
    let server = start().await;
    let long = [b"\x0a\xa0\x8d\x06".as_slice(), &[b'x'; 100_000]].concat();
    let (body, status, message) = exchange(server.address, "GetPodRole", &long).await;
    assert_eq!((body.len(), status.as_str()), (0, "11"), "{message}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let server = start().await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut tcp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    assert!(ended.is_err() || answer.len() < 16, "an alert at most: {answer:?}");
}

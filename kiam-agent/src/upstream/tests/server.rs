//! A kiam server that answers by the pod's address, over mutual TLS.

use kiam_common::{
    proto::{
        self, GetHealthRequest, GetPodCredentialsRequest, GetPodRoleRequest, HealthStatus, Seen,
        kiam_service_server::{KiamService, KiamServiceServer},
    },
    tls::{self, TlsFiles},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};
use tower_service::Service as _;

/// An authority, and the files of a server and of an agent.
pub(super) struct Pki {
    folder: TempDir,
    ca: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
    server_name: String,
}

impl Pki {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Arc::new(Issuer::new(params, key));
        Self { folder: TempDir::new().unwrap(), ca, issuer, server_name: "kiam-server".into() }
    }

    /// Returns the same authority with another name in the server's certificate.
    pub(super) fn with_name(&self, name: &str) -> Self {
        let issuer = Arc::clone(&self.issuer);
        Self { folder: TempDir::new().unwrap(), ca: self.ca.clone(), issuer, server_name: name.into() }
    }

    /// Returns the same authority for servers, with agents' certificates from `other`.
    pub(super) fn with_agent_of(&self, other: &Self) -> Self {
        Self { issuer: Arc::clone(&other.issuer), ..self.with_name(&self.server_name) }
    }

    pub(super) fn agent_files(&self) -> TlsFiles {
        self.files("agent", &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn server_files(&self) -> TlsFiles {
        self.files("server", std::slice::from_ref(&self.server_name), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn files(&self, owner: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.extended_key_usages = vec![usage];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |name: &str, text: &str| {
            let path = Path::new(self.folder.path()).join(format!("{owner}-{name}.pem"));
            fs::write(&path, text).unwrap();
            path
        };
        TlsFiles { ca: write("ca", &self.ca), cert: write("cert", &cert), key: write("key", &key.serialize_pem()) }
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) ip: String,
    pub(super) caller: Option<proto::Caller>,
}

/// A scripted server. It answers `10.0.1.x` with an error each, `10.0.2.n` from the n-th request on, `10.0.3.1` as seen
/// for 5 s, `10.0.3.2` like kiam's own server, and all others with `role-a`.
#[derive(Clone, Default)]
struct Script {
    requests: Arc<Mutex<Vec<Received>>>,
    silent: Arc<AtomicBool>,
    reset_calls: Arc<AtomicBool>,
    resets: Arc<AtomicUsize>,
}

impl Script {
    fn answer(&self, ip: &str, caller: Option<proto::Caller>) -> Result<Option<Seen>, Status> {
        let mut requests = self.requests.lock().unwrap();
        requests.push(Received { ip: ip.to_owned(), caller });
        let seen = |for_ms| {
            let (pod_namespace, pod_name) = ("default".into(), "pod-a".into());
            Ok(Some(Seen { pod_namespace, pod_name, pod_uid: "u".into(), for_ms }))
        };
        match ip {
            "10.0.1.1" => Err(Status::unknown("pod not found")),
            "10.0.1.2" => Err(Status::unknown("multiple running pods found")),
            "10.0.1.3" => Err(Status::unknown("forbidden by policy")),
            "10.0.1.4" => Err(Status::unknown("AccessDenied")),
            "10.0.2.4" if requests.iter().filter(|request| request.ip == ip).count() < 4 => {
                Err(Status::unknown("pod not found"))
            }
            "10.0.3.1" => seen(5_000),
            "10.0.3.2" => Ok(None),
            _ => seen(0),
        }
    }

    fn resets(&self, path: &str) -> bool {
        let resets = self.reset_calls.load(Ordering::Relaxed) && !path.ends_with("/GetHealth");
        self.resets.fetch_add(usize::from(resets), Ordering::Relaxed);
        resets
    }

    async fn sleep_if_silent(&self) {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl KiamService for Script {
    async fn get_pod_role(&self, request: Request<GetPodRoleRequest>) -> Result<Response<proto::Role>, Status> {
        self.sleep_if_silent().await;
        let GetPodRoleRequest { ip, caller } = request.into_inner();
        let seen = self.answer(&ip, caller)?;
        let name = if ip == "10.0.1.9" { "" } else { "role-a" };
        Ok(Response::new(proto::Role { name: name.into(), seen }))
    }

    async fn get_pod_credentials(
        &self,
        request: Request<GetPodCredentialsRequest>,
    ) -> Result<Response<proto::Credentials>, Status> {
        self.sleep_if_silent().await;
        let GetPodCredentialsRequest { ip, role: _, caller } = request.into_inner();
        let seen = self.answer(&ip, caller)?;
        let expiration = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3_600);
        Ok(Response::new(proto::Credentials {
            code: "Success".into(),
            r#type: "AWS-HMAC".into(),
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: "secret".into(),
            token: "token".into(),
            expiration: expiration.to_string(),
            last_updated: "2026-11-21T08:16:34Z".into(),
            seen,
        }))
    }

    async fn get_health(&self, _request: Request<GetHealthRequest>) -> Result<Response<HealthStatus>, Status> {
        self.sleep_if_silent().await;
        Ok(Response::new(HealthStatus { message: "ok".into() }))
    }
}

/// A running server.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    script: Script,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(pki: &Pki, address: &str) -> Self {
        let tls = tls::Server::load(&pki.server_files()).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Script::default());
        let connections = Arc::default();
        let accepting = tokio::spawn(accept(listener, tls, script.clone(), Arc::clone(&connections)));
        Self { address, script, connections, accepting }
    }

    /// Returns all requests so far.
    pub(super) fn requests(&self) -> Vec<Received> {
        self.script.requests.lock().unwrap().clone()
    }

    /// Forgets all requests.
    pub(super) fn forget(&self) {
        self.script.requests.lock().unwrap().clear();
    }

    /// Closes all connections.
    pub(super) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Sets whether the streams of calls except `GetHealth` are reset.
    pub(super) fn reset_calls(&self, reset: bool) {
        self.script.reset_calls.store(reset, Ordering::Relaxed);
    }

    /// Returns the number of reset streams.
    pub(super) fn resets(&self) -> usize {
        self.script.resets.load(Ordering::Relaxed)
    }

    /// Stops answering, while connections stay open.
    pub(super) fn silence(&self) {
        self.script.silent.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, tls: Arc<tls::Server>, script: Script, connections: Arc<Mutex<JoinSet<()>>>) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, script) = (TlsAcceptor::from(tls.config()), script.clone());
        connections.lock().unwrap().spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let reset = script.resets(request.uri().path());
                let mut service = KiamServiceServer::new(script.clone());
                async move {
                    if reset {
                        return Err(std::io::Error::other("reset"));
                    }
                    service.call(request).await.map_err(std::io::Error::other)
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

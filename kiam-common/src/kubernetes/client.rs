//! The client of the API server. kube's own client has no read time-outs: if a server disappears without closing the
//! connection, the client waits until the kernel gives up, which takes up to half an hour.

use hyper_util::{client::legacy, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use kube::{
    Client,
    client::{Body, ConfigExt as _},
    config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{path::Path, path::PathBuf, time::Duration};
use tower::{BoxError, ServiceBuilder, timeout::TimeoutLayer};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the head of a response. The head of a list is sent when the list is ready, that of a watch at once.
const RESPONSE_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent connection is probed after this time, so that a dead one is detected within 15 s.
const KEEPALIVE_IDLE_TIME: Duration = Duration::from_secs(5);
/// Time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Unanswered probes after which a connection is dead.
const KEEPALIVE_PROBES_MAX: u32 = 3;

/// Reason why the client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig is missing or invalid.
    #[error("cannot use --kubeconfig={}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        source: KubeconfigError,
    },
    /// There is neither a kubeconfig nor a ServiceAccount.
    #[error("no credentials for the Kubernetes API: give --kubeconfig=FILE, or run in a pod with a ServiceAccount")]
    NotInCluster(#[source] InClusterError),
    /// The configuration that was found is unusable.
    #[error("cannot set up the client of the Kubernetes API")]
    Client(#[source] kube::Error),
}

/// Sets up the client, without connecting. Without a kubeconfig it uses the ServiceAccount of this pod.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        Some(path) => {
            let fail = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(fail)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(fail)?
        }
        None => Config::incluster().map_err(ConnectError::NotInCluster)?,
    };
    tracing::info!(url = %config.cluster_url, "Kubernetes API");
    client(&config).map_err(ConnectError::Client)
}

fn client(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE_TIME));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES_MAX));
    tcp.set_tcp_user_timeout(Some(KEEPALIVE_IDLE_TIME + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES_MAX));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(TimeoutLayer::new(RESPONSE_HEAD_TIMEOUT))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

//! Composition of the server: [`build`] checks and binds everything, [`Bound::run`] serves until the process is
//! stopped.
//!
//! ```text
//! k8s watch ──▶ Cluster ──▶ prefetch ──▶ Cache ──▶ Sts
//!                  ▲                       ▲
//!                  └────── grpc::Kiam ─────┘ ──▶ EventRecorder
//! ```

mod admin;
mod clock;

use crate::{
    aws::{self, Aws, Sts},
    cache::{self, CacheMetrics},
    config::{AwsConfig, BaseArn, Config, GrpcConfig, RoleConfig},
    core::{policy::Policy, provider::Clock, role::RoleBase, session::SessionName},
    grpc::{self, ConnectionSettings, Incoming, Kiam},
    k8s::{self, Cluster, EventRecorder, WatchMetrics},
};
use admin::Admin;
use anyhow::Context as _;
use clock::SystemClock;
use kiam_common::{admin::serve as serve_admin, kubernetes, rpc_metrics::RpcMetrics, tasks::Tasks, tls};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::oneshot};

/// Time for pending requests to finish when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Session name of the server for `--assume-role-arn`.
const OWN_SESSION_NAME: &str = "server";

/// A server that is ready to serve.
pub(crate) struct Bound {
    grpc: Kiam<Cluster, cache::Cache, EventRecorder>,
    incoming: Incoming,
    connections: ConnectionSettings,
    /// Tasks that must not end while the server runs.
    tasks: Tasks,
}

/// Checks certificates, sets up AWS, and binds every address. Does not serve, and does not call Kubernetes.
pub(crate) async fn build(config: Config) -> anyhow::Result<Bound> {
    let Config { log: _, admin, tls, grpc, cluster, roles, aws, notices: _ } = config;
    let (mut registry, mut tasks) = (Registry::default(), Tasks::default());
    let tls = tls::Server::load(&tls)?;
    tls.register_metrics(&mut registry);
    let client = kubernetes::connect(cluster.kubeconfig.as_deref()).await?;
    let pods = Arc::new(Cluster::new(roles.anchoring));
    let watch_metrics = register_watch(&mut registry);
    let (notices, write_events) = EventRecorder::new(client.clone(), register_events(&mut registry));

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (sts, policy) = connect_aws(&aws, roles, Arc::clone(&clock)).await?;
    let (cache, work) = cache::worker(Arc::new(sts), clock, aws.cache, CacheMetrics::register(&mut registry));
    let service = Kiam {
        pods: Arc::clone(&pods),
        credentials: cache.clone(),
        notices,
        policy: Arc::clone(&policy),
        metrics: RpcMetrics::register(tls::Side::Server, &mut registry),
    };

    let listener = bind("--bind", grpc.bind).await?;
    let (incoming, accept) = grpc::accept(listener, Arc::clone(&tls));
    let handler = Arc::new(Admin::new(Arc::clone(&pods), registry));
    let admin_listener = bind("--port", SocketAddr::from((Ipv4Addr::LOCALHOST, admin.port))).await?;
    tasks.add("admin endpoint", serve_admin(admin_listener, Arc::clone(&handler)));
    if let Some(address) = admin.prometheus {
        let listener = bind("--prometheus-listen-addr", address).await?;
        tasks.add("metrics", serve_admin(listener, handler));
    }
    tasks.add("certificates", tls.watch());
    tasks.add("pods", k8s::watch_pods(client.clone(), Arc::clone(&pods), watch_metrics.clone()));
    tasks.add("namespaces", k8s::watch_namespaces(client, Arc::clone(&pods), watch_metrics));
    tasks.add("events", write_events);
    tasks.add("cache", work);
    tasks.add("prefetch", cache::prefetch(pods, policy, cache));
    tasks.add("connections", accept);
    Ok(Bound { grpc: service, incoming, connections: connections(&grpc), tasks })
}

impl Bound {
    /// Serves until `stop`, then finishes pending requests. Returns an error if a part of the server ended: the process
    /// is useless then and must be restarted.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { grpc, incoming, connections, tasks } = self;
        let (drain, drained) = oneshot::channel::<()>();
        let serve = grpc::serve(grpc, incoming, connections, async {
            // Ends when `drain` is dropped.
            drop(drained.await);
        });
        tokio::pin!(serve);
        let mut running = tasks.start();
        tracing::info!("serving");
        tokio::select! {
            ended = &mut serve => {
                ended.context("the gRPC server failed")?;
                anyhow::bail!("the gRPC server: ended, though it never should");
            }
            end = running.first_to_end() => return Err(end.into()),
            () = stop => {}
        }
        tracing::info!("stopping: finishing pending requests");
        drop(drain);
        match tokio::time::timeout(DRAIN_TIMEOUT, serve).await {
            Ok(ended) => ended.context("cannot stop the gRPC server")?,
            Err(_elapsed) => tracing::warn!("some requests did not finish in time"),
        }
        Ok(())
    }
}

async fn connect_aws(aws: &AwsConfig, roles: RoleConfig, clock: Arc<dyn Clock>) -> anyhow::Result<(Sts, Arc<Policy>)> {
    let RoleConfig { base, anchoring: _, session } = roles;
    let mut connection = Aws::connect(&aws.settings).await?;
    let role_base = match base {
        BaseArn::Given(base) => base,
        BaseArn::Detected => detect(&connection).await?,
    };
    if let Some(role) = &aws.assume_role {
        let role = role_base.resolve(role).with_context(|| format!("--assume-role-arn={role}"))?;
        connection = connection.assume(&role, &SessionName::parse(OWN_SESSION_NAME)?).await;
        tracing::info!(%role, "assuming pods' roles with the credentials of this role");
    }
    let sts = Sts::new(&connection, aws.session_duration, clock);
    Ok((sts, Arc::new(Policy { role_base, default_session: session })))
}

async fn detect(connection: &Aws) -> anyhow::Result<RoleBase> {
    let base = aws::detect_role_base(connection).await.context(
        "--role-base-arn-autodetect: cannot detect the account; give --role-base-arn, or let the server reach the real \
         IMDS (hostNetwork, or a hop limit of 2)",
    )?;
    tracing::info!(role_base_arn = base.as_str(), "account detected");
    Ok(base)
}

async fn bind(flag: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))?;
    tracing::info!(flag, address = %listener.local_addr()?, "listening");
    Ok(listener)
}

fn connections(config: &GrpcConfig) -> ConnectionSettings {
    let GrpcConfig { bind: _, keepalive_time, keepalive_timeout, age, age_grace } = config.clone();
    ConnectionSettings { keepalive_time, keepalive_timeout, age, age_grace }
}

fn register_watch(registry: &mut Registry) -> WatchMetrics {
    let metrics = WatchMetrics::default();
    let k8s = registry.sub_registry_with_prefix("kiam_k8s");
    k8s.register("watch_errors", "Errors of the Kubernetes watches, by resource", metrics.errors.clone());
    k8s.register(
        "skipped_objects",
        "Kubernetes objects skipped because they could not be read, by resource",
        metrics.skipped.clone(),
    );
    // kiam drops pods when its buffer is full; this server waits until there is room.
    k8s.register("dropped_pods", "Pods dropped from prefetching; always 0", Counter::<u64>::default());
    metrics
}

fn register_events(registry: &mut Registry) -> Counter {
    let dropped = Counter::default();
    registry.register(
        "kiam_k8s_dropped_events",
        "Kubernetes Events dropped because the queue was full",
        dropped.clone(),
    );
    dropped
}

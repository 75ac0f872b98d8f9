//! The unprivileged process: it answers pods and calls the server, and can do nothing else.

mod admin;
mod attestation_client;
mod control;
mod ingress;
mod privileges;
mod seccomp;

use crate::{
    config::{Config, UpstreamConfig},
    imds::{self, Attribution, ImdsServer, Interfaces, Tokens},
    metrics::{Datapath, Metrics},
    report::Status,
    upstream::{Connector, Upstream},
    worker_protocol::{Handoff, is_shared},
};
use admin::{Admin, Listeners, MetricsOnly};
use anyhow::Context as _;
use control::News;
use ingress::KernelIngress;
use kiam_common::{
    admin::serve as serve_admin,
    tasks::Tasks,
    tls::{self, TlsError},
};
use prometheus_client::registry::Registry;
use std::{io, num::NonZero, sync::Arc, thread, time::Duration};
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Most threads: four answer more requests than a node's pods can send.
const THREADS_MAX: usize = 4;
/// Time that connections have to finish after a request to stop: as long as a request may take.
const DRAIN_TIME_MAX: Duration = imds::limits::REQUEST_TIME_MAX;

/// Runs until the parent sends `Stop` or has ended.
pub(crate) fn run(handoff: Handoff, config: Config) -> anyhow::Result<()> {
    privileges::drop_all(&config.datapath, &handoff.control).context("giving up privileges")?;
    seccomp::confine()?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(Box::pin(serve(handoff, config)))
}

async fn serve(handoff: Handoff, config: Config) -> anyhow::Result<()> {
    let Handoff { listeners, token_key, client, control } = handoff;
    let Config { log: _, admin, imds, upstream, datapath, take_over: _, exempt: _, notices: _ } = config;
    let mut terminate = signal(SignalKind::terminate())?;
    // A terminal sends it to both processes; the parent decides.
    let _interrupt = signal(SignalKind::interrupt())?;
    let admin_listeners = Listeners::bind(&admin)?;
    let tls = load_tls(&upstream, datapath.worker_uid, datapath.worker_gid)?;
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    tls.register_metrics(&mut registry);
    let (interfaces, known_interfaces) = watch::channel(Arc::<Interfaces>::default());
    let (status, known_status) = watch::channel(Status::default());
    registry.register_collector(Box::new(Datapath::new(known_status.clone())));

    let connector = Connector::new(upstream, Arc::clone(&tls), Arc::clone(&metrics)).context("--server-address")?;
    let reached = connector.reached();
    let tokens = Tokens::new(&token_key, imds::boot_id().context("reading the boot id")?)?;
    let own = listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?;
    let (client, attestation) = attestation_client::open(client).context("the attestation socket")?;
    let ingress = KernelIngress::new(client, own);
    let source = Upstream::new(&connector, Arc::clone(&metrics));
    let attribution = Attribution::new(datapath.attestation, known_interfaces);
    let server = ImdsServer::new(source, attribution, tokens, imds.v1, metrics);
    let mut tasks = Tasks::default();
    tasks.add_fallible("attestation client", attestation);
    for listener in listeners {
        let alone = !is_shared(&listener);
        let listener = to_tokio(listener).context("a listening socket of the parent")?;
        let (server, ingress) = (Arc::clone(&server), ingress.clone());
        tasks.add("listener", async move { server.accept_from(listener, &ingress, alone).await });
    }
    spawn_admin(&mut tasks, Admin { registry, status: known_status, reached: reached.clone() }, admin_listeners);
    tasks.add("certificates", tls.watch());
    tasks.add("upstream connector", connector.run());
    let (reader, writer) = control::open(control).context("the control socket")?;
    tasks.add("control socket", control::report(writer, reached));
    let mut running = tasks.start();
    tracing::info!(uid = datapath.worker_uid, gid = datapath.worker_gid, "answering pods");

    let news = News { interfaces, status };
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = control::listen(reader, &news) => stopped?,
        end = running.first_to_end() => return Err(end.into()),
    }
    tracing::info!("stopping: no new connections");
    server.stop(DRAIN_TIME_MAX).await;
    Ok(())
}

fn spawn_admin(tasks: &mut Tasks, admin: Admin, listeners: Listeners) {
    let admin = Arc::new(admin);
    if let Some(listener) = listeners.metrics {
        let metrics = Arc::new(MetricsOnly(Arc::clone(&admin)));
        tasks.add("metrics", serve_admin(listener, metrics));
    }
    tasks.add("admin endpoint", serve_admin(listeners.local, admin));
}

fn to_tokio(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Loads the TLS files. They usually come from a Secret, and the worker is not root, so it may not be able to read
/// them.
fn load_tls(config: &UpstreamConfig, uid: u32, gid: u32) -> anyhow::Result<Arc<tls::Client>> {
    tls::Client::load(&config.tls).map_err(|error| {
        let denied =
            matches!(&error, TlsError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::new(error);
        if denied {
            return error.context(format!(
                "a file must be readable for user {uid} or group {gid}: set the Secret volume's defaultMode to 0444, or \
                 change the mode of the file"
            ));
        }
        error
    })
}

//! The admin endpoint of the agent: health and metrics on loopback, and metrics on `--prometheus-listen-addr`.

use crate::{
    config::AdminConfig,
    report::{Condition, Status},
};
use anyhow::Context as _;
use kiam_common::admin::{AdminHandler, encode};
use prometheus_client::registry::Registry;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpListener, sync::watch};

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Health of the agent as the worker knows it, and its metrics.
pub(super) struct Admin {
    pub(super) registry: Registry,
    pub(super) status: watch::Receiver<Status>,
    pub(super) reached: watch::Receiver<bool>,
}

/// The metrics only, for an address that is reachable from outside the node.
pub(super) struct MetricsOnly(pub(super) Arc<Admin>);

/// The sockets of the admin endpoint.
pub(super) struct Listeners {
    pub(super) local: TcpListener,
    pub(super) metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds the sockets. An error names the flag.
    pub(super) fn bind(config: &AdminConfig) -> anyhow::Result<Self> {
        let AdminConfig { port, prometheus } = config;
        let local = listen((Ipv4Addr::LOCALHOST, *port).into())
            .with_context(|| format!("--port {port}: cannot listen there; choose another port above 1023"))?;
        let metrics = prometheus.map(|address| {
            listen(address).with_context(|| {
                format!("--prometheus-listen-addr {address}: cannot listen there; choose another port above 1023")
            })
        });
        Ok(Self { local, metrics: metrics.transpose()? })
    }
}

/// Listens with SO_REUSEPORT: in an upgrade, the old and the new agent listen at the same time.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl AdminHandler for Admin {
    fn health(&self) -> Result<String, String> {
        let mut missing = String::new();
        for Condition { name, problem } in &self.status.borrow().conditions {
            if let Some(problem) = problem {
                add(&mut missing, name, problem);
            }
        }
        if self.status.borrow().conditions.is_empty() {
            add(&mut missing, "datapath", "its state is not known yet");
        }
        if !*self.reached.borrow() {
            add(&mut missing, "server", "not reached since the agent started; see --server-address and the log");
        }
        if missing.is_empty() { Ok("ok\n".to_owned()) } else { Err(missing) }
    }

    fn metrics(&self) -> Option<String> {
        encode(&self.registry)
    }
}

impl AdminHandler for MetricsOnly {
    fn health(&self) -> Result<String, String> {
        Err("health is available on loopback only: --port\n".to_owned())
    }

    fn metrics(&self) -> Option<String> {
        self.0.metrics()
    }
}

fn add(text: &mut String, name: &str, problem: &str) {
    // Writing to a String cannot fail.
    if writeln!(text, "{name}: {problem}").is_err() {
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> (Admin, watch::Sender<Status>, watch::Sender<bool>) {
        let (status, seen_status) = watch::channel(Status::default());
        let (reached, seen_reached) = watch::channel(false);
        (Admin { registry: Registry::default(), status: seen_status, reached: seen_reached }, status, reached)
    }

    fn condition(name: &str, problem: Option<&str>) -> Condition {
        Condition { name: name.into(), problem: problem.map(str::to_owned) }
    }

    #[test]
    fn health_names_what_is_missing() {
        let (admin, status, reached) = admin();
        let told = admin.health().unwrap_err();
        assert!(told.contains("datapath: ") && told.contains("server: "), "{told}");

        let conditions = vec![condition("listener", None), condition("fence-ipv4", Some("the rule is gone"))];
        status.send_replace(Status { conditions, ..Status::default() });
        reached.send_replace(true);
        assert_eq!(admin.health().unwrap_err(), "fence-ipv4: the rule is gone\n");

        status.send_replace(Status { conditions: vec![condition("fence-ipv4", None)], ..Status::default() });
        assert_eq!(admin.health().unwrap(), "ok\n");
    }

    #[tokio::test]
    async fn agents_share_a_port_and_a_stranger_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = first.local_addr().unwrap().port();
        let config = AdminConfig { port, prometheus: None };
        assert!(Listeners::bind(&config).is_ok());
        drop(first);

        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = stranger.local_addr().unwrap().port();
        let Err(error) = Listeners::bind(&AdminConfig { port, prometheus: None }) else { panic!("bound twice") };
        assert!(error.to_string().contains(&format!("--port {port}")), "{error:#}");
    }
}

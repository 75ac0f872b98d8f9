//! Keeps one connection to one of the servers for as long as the process runs.
//!
//! Each round resolves `--server-address` again and tries every address, in random order and the one that just failed
//! last, until one answers `GetHealth`: with TLS 1.3 a server's refusal of our certificate is visible only then. An
//! idle connection is checked with the same call, because kiam's server treats HTTP/2 pings as abuse but always allows
//! calls.

use super::{
    connection::{self, ConnectError, Connection, Driver},
    resolve::{self, Lookup, ResolveError},
};
use crate::{
    config::UpstreamConfig,
    metrics::{Metrics, Rpc},
};
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use kiam_common::{
    flags::ServerAddress,
    proto::{GetHealthRequest, kiam_service_client::KiamServiceClient},
    telemetry::chain,
    tls,
};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, error::Elapsed, interval_at, sleep, timeout},
};
use tonic::{Code, Status};

/// First pause after a round in which no server was reachable.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest such pause: when the servers are back, agents reconnect within seconds, and not all at once.
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// Most pending requests for a check of the connection; one is enough.
const PENDING_CHECKS_MAX: usize = 1;

/// An open connection, for requests.
#[derive(Clone)]
pub(crate) struct Link {
    /// Identifier, unique in this process.
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) client: KiamServiceClient<Connection>,
}

/// The state of the connection.
pub(super) enum State {
    /// The first round since the start or since the loss of a connection; requests wait for it.
    Connecting,
    /// Connected.
    Up(Link),
    /// A whole round failed; requests fail at once while rounds go on.
    Down,
}

/// The reason why no server was reachable in a round.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("--server-address={server}")]
    Resolve { server: ServerAddress, source: ResolveError },
    #[error("server {address}")]
    Connect { address: SocketAddr, source: ConnectError },
    #[error("server {address}: GetHealth failed; check that the server trusts the certificate of --cert")]
    Health { address: SocketAddr, source: Status },
    #[error("server {address}: GetHealth timed out")]
    HealthTimeout { address: SocketAddr, source: Elapsed },
}

/// Keeps the connection while [`Self::run`] runs.
pub(crate) struct Connector {
    config: UpstreamConfig,
    lookup: Lookup,
    name: ServerName<'static>,
    tls: Arc<tls::Client>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    checks: (mpsc::Sender<u64>, mpsc::Receiver<u64>),
    reached: watch::Sender<bool>,
    links: u64,
}

impl Connector {
    /// Returns a connector that does not connect before [`Self::run`].
    ///
    /// # Errors
    /// No certificate can be valid for the server's name.
    pub(crate) fn new(
        config: UpstreamConfig,
        tls: Arc<tls::Client>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidDnsNameError> {
        let lookup = resolve::system(&config.server);
        Self::with(config, tls, metrics, lookup)
    }

    /// Does as [`Self::new`] with another resolver than the system's.
    pub(super) fn with(
        config: UpstreamConfig,
        tls: Arc<tls::Client>,
        metrics: Arc<Metrics>,
        lookup: Lookup,
    ) -> Result<Self, InvalidDnsNameError> {
        let name = ServerName::try_from(config.server.host.clone())?;
        let (state, _) = watch::channel(State::Connecting);
        let (reached, _) = watch::channel(false);
        Ok(Self {
            config,
            lookup,
            name,
            tls,
            metrics,
            state,
            checks: mpsc::channel(PENDING_CHECKS_MAX),
            reached,
            links: 0,
        })
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Returns the sender of requests to check a connection, by [`Link::id`].
    pub(super) fn checks(&self) -> mpsc::Sender<u64> {
        self.checks.0.clone()
    }

    /// Returns a watch that becomes and stays true when a server is reached for the first time.
    pub(crate) fn reached(&self) -> watch::Receiver<bool> {
        self.reached.subscribe()
    }

    /// Connects and reconnects. Never returns.
    pub(crate) async fn run(mut self) {
        let mut backoff = backoff();
        let mut avoid = None;
        let mut logged = None;
        loop {
            match self.round(avoid).await {
                Ok((link, driver)) => {
                    backoff = self::backoff();
                    logged = None;
                    tracing::info!(server = %link.address, name = %self.config.server, "connected to a server");
                    avoid = Some(link.address);
                    self.serve(link, driver).await;
                }
                Err(error) => {
                    log_once(&error, &mut logged);
                    self.state.send_replace(State::Down);
                    sleep(backoff.next().unwrap_or(BACKOFF_MAX)).await;
                }
            }
        }
    }

    /// Tries every address once; returns the last error if all fail.
    async fn round(&mut self, avoid: Option<SocketAddr>) -> Result<(Link, Driver), RoundError> {
        let addresses = resolve::addresses(&self.lookup, avoid).await;
        let unresolved = |source| RoundError::Resolve { server: self.config.server.clone(), source };
        let mut error = unresolved(ResolveError::Nothing);
        for address in addresses.map_err(unresolved)? {
            match self.reach(address).await {
                Ok((client, driver)) => {
                    self.metrics.connect_tried(true);
                    self.links += 1;
                    return Ok((Link { id: self.links, address, client }, driver));
                }
                Err(failure) => {
                    self.metrics.connect_tried(false);
                    tracing::debug!(error = %chain(&failure), "server not reachable");
                    error = failure;
                }
            }
        }
        Err(error)
    }

    async fn reach(&self, address: SocketAddr) -> Result<(KiamServiceClient<Connection>, Driver), RoundError> {
        let authority = self.config.server.to_string();
        let (client, driver) = connection::connect(address, self.name.clone(), &authority, &self.tls)
            .await
            .map_err(|source| RoundError::Connect { address, source })?;
        self.check(address, client.clone()).await?;
        Ok((client, driver))
    }

    /// Checks that the server answers on this connection.
    async fn check(&self, address: SocketAddr, mut client: KiamServiceClient<Connection>) -> Result<(), RoundError> {
        self.metrics.rpc_started(Rpc::Health);
        let outcome = timeout(self.config.keepalive_timeout, client.get_health(GetHealthRequest {})).await;
        let code = outcome
            .as_ref()
            .map_or(Code::DeadlineExceeded, |answer| answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        self.metrics.rpc_handled(Rpc::Health, code);
        match outcome {
            Ok(Ok(_healthy)) => Ok(()),
            Ok(Err(source)) => Err(RoundError::Health { address, source }),
            Err(source) => Err(RoundError::HealthTimeout { address, source }),
        }
    }

    /// Provides the connection for requests until it ends or a check fails.
    async fn serve(&mut self, link: Link, mut driver: Driver) {
        self.metrics.set_connected(true);
        self.reached.send_replace(true);
        self.state.send_replace(State::Up(link.clone()));
        let every = self.config.keepalive_time;
        let mut interval = interval_at(Instant::now() + every, every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = driver.ended() => {
                    tracing::info!(server = %link.address, "the connection to the server ended");
                    break;
                }
                _ = interval.tick() => {}
                Some(id) = self.checks.1.recv() => if id != link.id { continue },
            }
            if let Err(error) = self.check(link.address, link.client.clone()).await {
                tracing::warn!(error = %chain(&error), "closing the connection to the server: its check failed");
                break;
            }
        }
        self.state.send_replace(State::Connecting);
        self.metrics.set_connected(false);
    }
}

/// Logs why no server is reachable, unless it is the error of the last round.
fn log_once(error: &RoundError, logged: &mut Option<String>) {
    let text = chain(error);
    if logged.as_ref() != Some(&text) {
        tracing::warn!(error = %text, "no kiam server reachable; retrying");
        *logged = Some(text);
    }
}

fn backoff() -> ExponentialBackoff {
    let builder = ExponentialBuilder::new().with_min_delay(BACKOFF_MIN).with_max_delay(BACKOFF_MAX);
    builder.with_jitter().without_max_times().build()
}

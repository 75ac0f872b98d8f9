//! The kiam server as a source of credentials: `kiam.KiamService` over mutual TLS.
//!
//! [`connector`] keeps one connection to one of the servers behind `--server-address`. Requests of pods use it, and
//! move to the next connection when it is lost. A pod's request fails as soon as it is clear that no server is
//! reachable; the agent itself keeps running. An unchanged kiam v4 server works, too ([`convert`]).

mod connection;
mod connector;
mod convert;
mod resolve;
mod retry;

pub(crate) use connector::{Connector, Link};

use crate::{
    clock,
    metrics::{Metrics, Rpc},
    source::{Caller, CredentialSource, Credentials, Found, SourceError},
};
use connector::State;
use convert::Verdict;
use kiam_common::proto::{self, GetPodCredentialsRequest, GetPodRoleRequest};
use retry::Retry;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};

/// Milliseconds subtracted from the time that the server may wait for a pod, so that its «not found» arrives in time
/// even on a busy machine.
const WAIT_MARGIN_MS: u64 = 100;

/// A pending call, boxed so that one loop serves both methods.
type Call<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// The server as a [`CredentialSource`].
pub(crate) struct Upstream {
    state: watch::Receiver<State>,
    checks: mpsc::Sender<u64>,
    metrics: Arc<Metrics>,
    unverified_logged: AtomicBool,
}

impl Upstream {
    /// Returns a source that uses the connection of `connector`.
    pub(crate) fn new(connector: &Connector, metrics: Arc<Metrics>) -> Self {
        Self {
            state: connector.state(),
            checks: connector.checks(),
            metrics,
            unverified_logged: AtomicBool::new(false),
        }
    }

    /// Calls until there is a final answer. Retries with backoff if the call failed with its connection (by then there
    /// may be another one), or if the pod is not known yet (our server waits for the pod, kiam's does not).
    async fn call<T>(
        &self,
        rpc: Rpc,
        caller: Caller,
        deadline: Instant,
        start: impl Fn(&Link, proto::Caller) -> Call<T> + Send + Sync,
    ) -> Result<Found<T>, SourceError>
    where
        T: convert::Answered,
    {
        let mut retry = Retry::new(deadline);
        loop {
            let link = self.link(deadline).await?;
            let call = start(&link, proto_caller(caller, deadline));
            self.metrics.rpc_started(rpc);
            let Ok(outcome) = timeout_at(deadline, call).await else {
                self.metrics.rpc_handled(rpc, tonic::Code::DeadlineExceeded);
                self.request_check(link.id);
                return Err(SourceError::TimedOut);
            };
            self.metrics.rpc_handled(rpc, outcome.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok));
            match convert::verdict(outcome, caller, clock::monotonic_ms()) {
                Verdict::Final(result) => return result,
                Verdict::Lost(status) => {
                    tracing::debug!(server = %link.address, error = %status, "call failed with its connection");
                    self.request_check(link.id);
                    retry.pause_or(SourceError::Unreachable).await?;
                }
                Verdict::Later(error) => retry.pause_or(error).await?,
            }
        }
    }

    /// Returns the connection, and waits for it while it is being established.
    async fn link(&self, deadline: Instant) -> Result<Link, SourceError> {
        if let State::Up(link) = &*self.state.borrow() {
            return Ok(link.clone());
        }
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout_at(deadline, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Up(link) => Ok(link.clone()),
                State::Connecting | State::Down => Err(SourceError::Unreachable),
            },
            Ok(Err(_connector_gone)) => Err(SourceError::Unreachable),
            Err(_elapsed) => Err(SourceError::Unreachable),
        }
    }

    /// Requests an immediate check of the connection. If the queue is full, a check is already requested.
    fn request_check(&self, id: u64) {
        if self.checks.try_send(id).is_err() {
            tracing::trace!(id, "a check of the connection is already requested");
        }
    }

    /// Logs once that the server must be replaced, which matters when a cluster moves from kiam's server to ours.
    fn log_if_unverified<T>(&self, result: &Result<T, SourceError>) {
        if matches!(result, Err(SourceError::Unverified)) && !self.unverified_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this server does not name the pod it answers for, just as kiam's own: pods started after this agent, \
                 and pods on the node's network, get no credentials until the server is replaced; logged once"
            );
        }
    }
}

impl CredentialSource for Upstream {
    async fn role(&self, caller: Caller, deadline: Instant) -> Result<Found<String>, SourceError> {
        let ip = ip(caller);
        let start = |link: &Link, caller| -> Call<proto::Role> {
            let mut client = link.client.clone();
            let request = timed(GetPodRoleRequest { ip: ip.clone(), caller: Some(caller) }, deadline);
            Box::pin(async move { client.get_pod_role(request).await })
        };
        let result = self.call(Rpc::PodRole, caller, deadline, start).await;
        self.log_if_unverified(&result);
        result.map(|Found { value, pod }| Found { value: value.name, pod })
    }

    async fn credentials(
        &self,
        caller: Caller,
        role: &str,
        deadline: Instant,
    ) -> Result<Found<Credentials>, SourceError> {
        let ip = ip(caller);
        let start = |link: &Link, caller| -> Call<proto::Credentials> {
            let mut client = link.client.clone();
            let (ip, role) = (ip.clone(), role.to_owned());
            let request = timed(GetPodCredentialsRequest { ip, role, caller: Some(caller) }, deadline);
            Box::pin(async move { client.get_pod_credentials(request).await })
        };
        let result = self.call(Rpc::PodCredentials, caller, deadline, start).await;
        self.log_if_unverified(&result);
        let Found { value, pod } = result?;
        Ok(Found { value: convert::credentials(value, jiff::Timestamp::now())?, pod })
    }
}

/// Returns the caller as the server gets it, as of now.
fn proto_caller(caller: Caller, deadline: Instant) -> proto::Caller {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    let wait_ms = u64::try_from(left).unwrap_or(u64::MAX).saturating_sub(WAIT_MARGIN_MS);
    proto::Caller {
        interface_age_ms: caller.interface_age_ms(clock::monotonic_ms()),
        wait_ms,
        pod_uid: caller.pod.map(|pod| pod.uid.to_string()),
    }
}

/// Returns the address as Kubernetes writes it, or an empty text for a pod without one. kiam's own server finds no pod
/// with an empty address, or one with an answer that is not accepted.
fn ip(caller: Caller) -> String {
    caller.address.map(|address| address.to_string()).unwrap_or_default()
}

/// Adds the deadline to a request, so that the server stops when the caller does.
fn timed<T>(message: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}

#[cfg(test)]
mod tests;

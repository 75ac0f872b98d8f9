//! The methods of `kiam.KiamService`: they find the pod, apply the policy, and return role or credentials.

use super::{
    convert,
    status::{self, Method},
};
use crate::core::{
    credentials::{Credentials, Identity},
    lookup::{Found, LookupError, PodLookup},
    notice::{Notice, NoticeSink},
    pod::PodFacts,
    policy::{Denial, Policy},
    provider::CredentialSource,
    text::quote,
};
use kiam_common::{
    proto::{self, kiam_service_server::KiamService},
    rpc_metrics::RpcMetrics,
};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// `kiam.KiamService`, generic over pod lookup, credential source and notice sink.
pub(crate) struct Kiam<L, S, N> {
    pub(crate) pods: Arc<L>,
    pub(crate) credentials: S,
    pub(crate) notices: Arc<N>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) metrics: RpcMetrics,
}

#[tonic::async_trait]
impl<L: PodLookup, S: CredentialSource, N: NoticeSink> KiamService for Kiam<L, S, N> {
    async fn get_pod_role(&self, request: Request<proto::GetPodRoleRequest>) -> Result<Response<proto::Role>, Status> {
        self.metrics.started("GetPodRole");
        let result = self.pod_role(&request.into_inner()).await;
        self.end("GetPodRole", result)
    }

    async fn get_pod_credentials(
        &self,
        request: Request<proto::GetPodCredentialsRequest>,
    ) -> Result<Response<proto::Credentials>, Status> {
        self.metrics.started("GetPodCredentials");
        let result = self.pod_credentials(&request.into_inner()).await;
        self.end("GetPodCredentials", result)
    }

    async fn get_health(&self, _: Request<proto::GetHealthRequest>) -> Result<Response<proto::HealthStatus>, Status> {
        self.metrics.started("GetHealth");
        let result = match self.pods.is_synced() {
            true => Ok(proto::HealthStatus { message: "ok".to_owned() }),
            false => Err(status::not_synced()),
        };
        self.end("GetHealth", result)
    }
}

impl<L: PodLookup, S: CredentialSource, N: NoticeSink> Kiam<L, S, N> {
    fn end<T>(&self, method: &'static str, result: Result<T, Status>) -> Result<Response<T>, Status> {
        self.metrics.handled(method, result.as_ref().map_or_else(Status::code, |_| Code::Ok));
        result.map(Response::new)
    }

    async fn pod_role(&self, request: &proto::GetPodRoleRequest) -> Result<proto::Role, Status> {
        let proto::GetPodRoleRequest { ip, caller } = request;
        let found = self.find(ip, caller.as_ref(), Method::PodRole).await?;
        let name = found.pod.wanted_role().unwrap_or_default().to_owned();
        tracing::debug!(namespace = found.pod.namespace, pod = found.pod.name, ?name, "role returned");
        Ok(proto::Role { name, seen: convert::seen(&found, caller.as_ref()) })
    }

    async fn pod_credentials(&self, request: &proto::GetPodCredentialsRequest) -> Result<proto::Credentials, Status> {
        let proto::GetPodCredentialsRequest { ip, role, caller } = request;
        let found = self.find(ip, caller.as_ref(), Method::PodCredentials).await?;
        let identity = self
            .policy
            .decide(&found.pod, found.namespace.as_deref(), role)
            .map_err(|denial| self.deny(&found.pod, role, &denial))?;
        let credentials = match self.credentials.credentials(&identity).await {
            Ok(credentials) => credentials,
            Err(error) => {
                log_failure(&found.pod, &identity, &error.message);
                let notice = Notice::CredentialError { explanation: error.message.clone() };
                self.notices.notify(&found.pod, notice);
                return Err(status::of_credentials(&error));
            }
        };
        log_issue(&found.pod, &identity, &credentials);
        Ok(convert::credentials(&credentials, convert::seen(&found, caller.as_ref())))
    }

    async fn find(&self, ip: &str, caller: Option<&proto::Caller>, method: Method) -> Result<Found, Status> {
        let found = match convert::query(ip, caller) {
            Some(query) => self.pods.find(query).await,
            None => Err(LookupError::NotFound),
        };
        found.map_err(|error| {
            match error {
                // A connection from the cgroup of one pod with the address of another.
                LookupError::Contradiction => tracing::warn!(?ip, ?caller, %error, "no pod found for a request"),
                _ => tracing::debug!(?ip, ?caller, %error, "no pod found for a request"),
            }
            status::of_lookup(error, method)
        })
    }

    fn deny(&self, pod: &Arc<PodFacts>, requested: &str, denial: &Denial) -> Status {
        if *denial != Denial::NoRole {
            let requested = quote(requested);
            tracing::warn!(
                namespace = pod.namespace, pod = pod.name, uid = pod.uid.as_str(), ?requested, explanation = %denial,
                "pod denied by policy"
            );
            let notice = Notice::RoleForbidden { requested, explanation: denial.to_string() };
            self.notices.notify(pod, notice);
        }
        status::of_denial(denial)
    }
}

fn log_failure(pod: &PodFacts, identity: &Identity, error: &str) {
    tracing::warn!(
        namespace = pod.namespace, pod = pod.name, uid = pod.uid.as_str(), role = %identity.role, error,
        "cannot issue credentials to a pod"
    );
}

/// Logs the audit line: which pod got which credentials.
fn log_issue(pod: &PodFacts, identity: &Identity, credentials: &Credentials) {
    tracing::info!(
        namespace = pod.namespace, pod = pod.name, uid = pod.uid.as_str(), node = pod.node, role = %identity.role,
        session = identity.session.as_str(), access_key_id = credentials.access_key_id,
        expires = %credentials.expires,
        "credentials issued"
    );
}

#[cfg(test)]
mod tests;

//! Lists and watches the pods of this node that run as the ServiceAccounts of `--exempt`.

use super::{Known, known::PODS_MAX};
use crate::{
    attestation::PodUid,
    config::{Account, ExemptConfig},
};
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::api::core::v1::Pod;
use kiam_common::{
    kubernetes::{Backoff, connect},
    telemetry::chain,
};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use std::{collections::BTreeSet, convert::Infallible, error::Error, future, pin::pin, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// Keeps the lists current. Never returns.
pub(crate) async fn follow(config: &ExemptConfig, known: &watch::Sender<Known>) -> Infallible {
    if config.accounts.is_empty() {
        return future::pending().await;
    }
    let Some(node) = &config.node else {
        let why = "give --node-name (KIAM_NODE_NAME, in a pod from spec.nodeName), or --exempt=none";
        known.send_if_modified(|known| known.fail_all(why));
        return future::pending().await;
    };
    let client = client(config, known).await;
    let watches: Vec<Watch<'_>> = config.accounts.iter().map(|account| Watch { account, known }).collect();
    join_all(watches.iter().map(|watch| watch.follow(client.clone(), node))).await;
    // There is at least one watch, and it never ends.
    future::pending().await
}

/// Creates a client, and retries while the credentials are missing. This does not connect yet.
async fn client(config: &ExemptConfig, known: &watch::Sender<Known>) -> Client {
    let mut backoff = Backoff::default();
    loop {
        let error = match connect(config.kubeconfig.as_deref()).await {
            Ok(client) => return client,
            Err(error) => chain(&error),
        };
        let pause = backoff.next(Instant::now());
        tracing::warn!("--exempt: {error}");
        known.send_if_modified(|known| known.fail_all(&error));
        sleep(pause).await;
    }
}

/// The pods of one ServiceAccount on this node.
struct Watch<'a> {
    account: &'a Account,
    known: &'a watch::Sender<Known>,
}

impl Watch<'_> {
    async fn follow(&self, client: Client, node: &str) {
        // Pods that have ended have no processes. Excluding them keeps the list short.
        let fields = format!(
            "spec.nodeName={node},spec.serviceAccountName={},status.phase!=Succeeded,status.phase!=Failed",
            self.account.name
        );
        let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, &self.account.namespace);
        let mut events = pin!(watcher(api, watcher::Config::default().fields(&fields)));
        let mut pods = Pods::default();
        let mut backoff = Backoff::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if pods.take(event) {
                        self.publish(&pods.listed);
                    }
                }
                Err(error) => self.complain(&error, backoff.next(Instant::now())).await,
            }
        }
    }

    fn publish(&self, pods: &BTreeSet<PodUid>) {
        if pods.len() > PODS_MAX {
            tracing::warn!(account = %self.account, "more than {PODS_MAX} pods on this node: some are not exempt");
        }
        self.known.send_if_modified(|known| known.set(self.account, pods.clone()));
    }

    async fn complain(&self, error: &watcher::Error, pause: Duration) {
        let is_old = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        let error = chain(error as &dyn Error);
        if is_old {
            tracing::debug!(account = %self.account, "the watch has expired: listing again");
        } else {
            tracing::warn!(
                account = %self.account,
                error,
                "cannot list exempt pods in the Kubernetes API: keeping the known ones and retrying"
            );
            self.known.send_if_modified(|known| known.fail(self.account, &error));
        }
        sleep(pause).await;
    }
}

/// A watched list. A new listing is gathered first and then replaces it.
#[derive(Default)]
struct Pods {
    listed: BTreeSet<PodUid>,
    gathered: BTreeSet<PodUid>,
}

impl Pods {
    /// Applies an event. Returns whether the list may have changed.
    fn take(&mut self, event: Event<PartialObjectMeta<Pod>>) -> bool {
        match event {
            Event::Init => {
                self.gathered.clear();
                return false;
            }
            Event::InitApply(pod) => {
                self.gathered.extend(uid(&pod));
                return false;
            }
            Event::InitDone => self.listed = std::mem::take(&mut self.gathered),
            Event::Apply(pod) => self.listed.extend(uid(&pod)),
            Event::Delete(pod) => self.listed.retain(|known| Some(*known) != uid(&pod)),
        }
        true
    }
}

fn uid(pod: &PartialObjectMeta<Pod>) -> Option<PodUid> {
    PodUid::parse(pod.metadata.uid.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const A: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";
    const B: &str = "11111111-2222-4333-8444-bbbbbbbbbbbb";

    fn pod(uid: &str) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "x", "namespace": "kube-system", "uid": uid}}))
        .unwrap()
    }

    fn uids(texts: &[&str]) -> BTreeSet<PodUid> {
        texts.iter().map(|text| PodUid::parse(text).unwrap()).collect()
    }

    #[test]
    fn complete_list_replaces_the_last_one() {
        let mut pods = Pods::default();
        for event in [Event::Init, Event::InitApply(pod(A)), Event::InitApply(pod("no UID"))] {
            assert!(!pods.take(event) && pods.listed.is_empty());
        }
        assert!(pods.take(Event::InitDone));
        assert_eq!(pods.listed, uids(&[A]));
        // An incomplete listing, and a complete one.
        for event in [Event::Init, Event::InitApply(pod(A)), Event::Init, Event::InitApply(pod(B))] {
            assert!(!pods.take(event));
            assert_eq!(pods.listed, uids(&[A]));
        }
        assert!(pods.take(Event::InitDone));
        assert_eq!(pods.listed, uids(&[B]));
    }

    #[test]
    fn pods_come_and_go() {
        let mut pods = Pods::default();
        assert!(pods.take(Event::Apply(pod(A))) && pods.take(Event::Apply(pod(B))));
        assert!(pods.take(Event::Delete(pod(A))) && pods.take(Event::Delete(pod(A))));
        assert_eq!(pods.listed, uids(&[B]));
    }

    #[tokio::test]
    async fn missing_node_name_is_a_problem() {
        let accounts = BTreeSet::from([Account::parse("kube-system/aws-node").unwrap()]);
        let known = watch::Sender::new(Known::recalled(&accounts, Default::default()));
        let config = ExemptConfig { accounts, node: None, own_pod: None, kubeconfig: None };
        assert!(tokio::time::timeout(Duration::from_millis(10), follow(&config, &known)).await.is_err());
        let problem = known.borrow().problem().unwrap();
        assert!(problem.contains("--node-name"), "{problem}");
    }
}

//! Asks the Kubernetes API which pods of this node run as the ServiceAccounts, and is told when they change.

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

/// Keeps what is known current. Never returns.
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
    // There was one at least, and it never ends.
    future::pending().await
}

/// Reading the credentials again until they are there: nothing is connected to yet.
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
        // Pods that have ended have no process; without them the list is short whatever happens.
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
                        self.tell(&pods.told);
                    }
                }
                Err(error) => self.complain(&error, backoff.next(Instant::now())).await,
            }
        }
    }

    fn tell(&self, pods: &BTreeSet<PodUid>) {
        if pods.len() > PODS_MAX {
            tracing::warn!(account = %self.account, "more than {PODS_MAX} pods on this node: not all of them are exempt");
        }
        self.known.send_if_modified(|known| known.set(self.account, pods.clone()));
    }

    async fn complain(&self, error: &watcher::Error, pause: Duration) {
        let is_old = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        let error = chain(error as &dyn Error);
        if is_old {
            tracing::debug!(account = %self.account, "the watch fell too far behind: listing anew");
        } else {
            tracing::warn!(
                account = %self.account,
                error,
                "the Kubernetes API does not tell which pods are exempt: going by what is known, trying again"
            );
            self.known.send_if_modified(|known| known.fail(self.account, &error));
        }
        sleep(pause).await;
    }
}

/// A list is gathered first, then it replaces all.
#[derive(Default)]
struct Pods {
    told: BTreeSet<PodUid>,
    gathered: BTreeSet<PodUid>,
}

impl Pods {
    /// Returns whether there may be news.
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
            Event::InitDone => self.told = std::mem::take(&mut self.gathered),
            Event::Apply(pod) => self.told.extend(uid(&pod)),
            Event::Delete(pod) => self.told.retain(|known| Some(*known) != uid(&pod)),
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
    fn a_list_is_told_when_it_is_whole_and_replaces_all() {
        let mut pods = Pods::default();
        for event in [Event::Init, Event::InitApply(pod(A)), Event::InitApply(pod("no UID"))] {
            assert!(!pods.take(event) && pods.told.is_empty());
        }
        assert!(pods.take(Event::InitDone));
        assert_eq!(pods.told, uids(&[A]));
        // One that breaks off, and one that does not.
        for event in [Event::Init, Event::InitApply(pod(A)), Event::Init, Event::InitApply(pod(B))] {
            assert!(!pods.take(event));
            assert_eq!(pods.told, uids(&[A]));
        }
        assert!(pods.take(Event::InitDone));
        assert_eq!(pods.told, uids(&[B]));
    }

    #[test]
    fn pods_come_and_go() {
        let mut pods = Pods::default();
        assert!(pods.take(Event::Apply(pod(A))) && pods.take(Event::Apply(pod(B))));
        assert!(pods.take(Event::Delete(pod(A))) && pods.take(Event::Delete(pod(A))));
        assert_eq!(pods.told, uids(&[B]));
    }

    #[tokio::test]
    async fn without_the_nodes_name_nobody_is_asked_and_it_is_said() {
        let accounts = BTreeSet::from([Account::parse("kube-system/aws-node").unwrap()]);
        let known = watch::Sender::new(Known::recalled(&accounts, Default::default()));
        let config = ExemptConfig { accounts, node: None, own_pod: None, kubeconfig: None };
        assert!(tokio::time::timeout(Duration::from_millis(10), follow(&config, &known)).await.is_err());
        let problem = known.borrow().problem().unwrap();
        assert!(problem.contains("--node-name"), "{problem}");
    }
}

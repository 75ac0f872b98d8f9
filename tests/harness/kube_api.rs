//! The fake Kubernetes API, used through kube-rs as the server does.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kiam_tests::{
    eventually::eventually,
    fakes::kube_api::{Kind, KubeApi, NamespaceObject, PodObject},
    node::{
        netns::Netns,
        topology::{NODE_NAME, pod_v4, pod_v6},
    },
};
use kube::{
    Api, Client, Config,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `work` with a cluster and a client in its namespace, where the client's runtime and threads live as well.
fn with_cluster(work: impl AsyncFnOnce(&KubeApi, Client) -> anyhow::Result<()> + Send) {
    let node = Netns::create("node").unwrap();
    let api = KubeApi::start(&node).unwrap();
    node.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let config = Kubeconfig::from_yaml(&api.kubeconfig())?;
            let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            work(&api, Client::try_from(config)?).await
        })
    })
    .unwrap();
}

fn pod(name: &str, role: &str) -> PodObject {
    PodObject::running("team-a", name, Some(role), pod_v4(1), pod_v6(1))
}

#[test]
fn lists_gets_patches_and_deletes() {
    with_cluster(async |api, client| {
        api.put_namespace(&NamespaceObject::permitting("team-a", ".*"));
        api.put_pod(&pod("one", "reader"));
        let pods: Api<Pod> = Api::namespaced(client.clone(), "team-a");
        let list = pods.list(&ListParams::default()).await?;
        assert_eq!(list.items.len(), 1);
        assert_eq!(list.items[0].status.as_ref().unwrap().pod_ips.as_ref().unwrap().len(), 2);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"iam.amazonaws.com/role": "writer"}}}));
        pods.patch("one", &PatchParams::default(), &patch).await?;
        assert_eq!(pods.get("one").await?.metadata.annotations.unwrap()["iam.amazonaws.com/role"], "writer");
        pods.delete("one", &Default::default()).await?;
        assert!(pods.get_opt("one").await?.is_none());
        let namespaces: Api<Namespace> = Api::all(client);
        assert_eq!(namespaces.list(&ListParams::default()).await?.items.len(), 1);
        Ok(())
    });
}

/// A reflector follows the objects, also across a compaction and an outage.
#[test]
fn reflector_survives_compaction_and_outage() {
    with_cluster(async |api, client| {
        api.put_pod(&pod("one", "reader"));
        let pods: Api<Pod> = Api::all(client);
        let (store, writer) = reflector::store();
        let stream = reflector(writer, watcher(pods, watcher::Config::default())).default_backoff().touched_objects();
        let follow = tokio::spawn(stream.for_each(|_| async {}));
        let role = || {
            let found = store.state().first().and_then(|pod: &Arc<Pod>| pod.metadata.annotations.clone());
            found.and_then(|notes| notes.get("iam.amazonaws.com/role").cloned()).unwrap_or_default()
        };
        let wait_for = async |wanted: &str| {
            tokio::time::timeout(PATIENCE, async {
                while role() != wanted {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .map_err(|_elapsed| anyhow::anyhow!("{wanted} was not seen, but {}", role()))
        };
        wait_for("reader").await?;
        api.put_pod(&pod("one", "writer"));
        wait_for("writer").await?;

        api.hold_watch_back(true);
        api.put_pod(&pod("one", "held"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(role(), "writer", "a change arrived through a watch that is held back");
        api.hold_watch_back(false);
        wait_for("held").await?;

        api.hold_watch_back(true);
        api.put_pod(&pod("one", "compacted"));
        api.compact();
        api.hold_watch_back(false);
        wait_for("compacted").await?;
        follow.abort();
        Ok(())
    });
}

/// A watch ends at its timeout, and the next one continues from the same version.
#[test]
fn watch_ends_at_its_timeout_and_resumes() {
    with_cluster(async |api, client| {
        let pods: Api<Pod> = Api::all(client);
        let version = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap();
        let mut watch = pods.watch(&WatchParams::default(), &version).await?.boxed();
        api.put_pod(&pod("one", "reader"));
        let Some(WatchEvent::Added(seen)) = watch.try_next().await? else { panic!("no pod") };
        api.end_watches();
        assert!(tokio::time::timeout(PATIENCE, watch.try_next()).await??.is_none());
        api.put_pod(&PodObject { terminating: true, ..pod("one", "reader") });
        let mut watch = pods.watch(&WatchParams::default(), &seen.metadata.resource_version.unwrap()).await?.boxed();
        let Some(WatchEvent::Modified(seen)) = watch.try_next().await? else { panic!("no change") };
        assert!(seen.metadata.deletion_timestamp.is_some());
        Ok(())
    });
}

/// A metadata watch shows only the objects that the field selector matches; one that no longer matches is reported as
/// deleted.
#[test]
fn metadata_watch_honours_field_selectors() {
    with_cluster(async |api, client| {
        let chosen = PodObject { service_account: "aws-node".to_owned(), ..pod("one", "reader") };
        api.put_pod(&chosen);
        api.put_pod(&pod("two", "reader"));
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, "team-a");
        let fields = format!("spec.nodeName={NODE_NAME},spec.serviceAccountName=aws-node,status.phase!=Failed");
        let mut events = watcher(pods.clone(), watcher::Config::default().fields(&fields)).boxed();
        assert!(matches!(events.try_next().await?, Some(watcher::Event::Init)));
        let Some(watcher::Event::InitApply(seen)) = events.try_next().await? else { panic!("no pod") };
        assert_eq!((seen.metadata.name.as_deref(), seen.metadata.uid), (Some("one"), Some(chosen.uid.clone())));
        assert_eq!(seen.types.unwrap().kind, "PartialObjectMetadata");
        assert!(matches!(events.try_next().await?, Some(watcher::Event::InitDone)));
        api.put_pod(&PodObject { phase: "Failed".to_owned(), ..chosen.clone() });
        let ended = tokio::time::timeout(PATIENCE, events.try_next()).await??;
        assert!(matches!(ended, Some(watcher::Event::Delete(pod)) if pod.metadata.uid == Some(chosen.uid)));

        let unknown = ListParams::default().fields("spec.serviceAccount=aws-node");
        let error = pods.list(&unknown).await.unwrap_err();
        assert!(matches!(&error, kube::Error::Api(status) if status.code == 400), "{error:?}");
        Ok(())
    });
}

/// Connections to a stopped API are refused; once it listens again, it has the same objects.
#[test]
fn stopped_api_refuses_and_returns_with_its_objects() {
    let node = Netns::create("node").unwrap();
    let api = KubeApi::start(&node).unwrap();
    api.put_pod(&pod("one", "reader"));
    let connect = || node.enter(|| Ok(std::net::TcpStream::connect("127.0.0.1:6443")?));
    connect().unwrap();
    api.stop();
    assert!(connect().is_err());
    api.listen(&node).unwrap();
    eventually("it listens", PATIENCE, || connect().map(drop)).unwrap();
    api.delete_pod("team-a", "one").unwrap();
}

#[test]
fn events_of_both_groups_are_kept() {
    with_cluster(async |api, client| {
        let events: Api<Event> = Api::namespaced(client.clone(), "team-a");
        let event = Event {
            metadata: ObjectMeta { generate_name: Some("one.".to_owned()), ..Default::default() },
            reason: Some("KiamRoleForbidden".to_owned()),
            ..Default::default()
        };
        events.create(&PostParams::default(), &event).await?;
        let newer: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client, "team-a");
        let event = k8s_openapi::api::events::v1::Event {
            metadata: ObjectMeta { name: Some("two".to_owned()), ..Default::default() },
            reason: Some("KiamCredentialError".to_owned()),
            ..Default::default()
        };
        newer.create(&PostParams::default(), &event).await?;
        let reasons: Vec<_> = api.events().iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect();
        assert_eq!(reasons, ["KiamRoleForbidden", "KiamCredentialError"]);
        Ok(())
    });
}

#[test]
fn a_watch_from_a_forgotten_version_is_gone() {
    with_cluster(async |api, client| {
        let pods: Api<Pod> = Api::all(client);
        let version = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap();
        api.put_pod(&pod("one", "reader"));
        api.compact();
        let error = match pods.watch(&Default::default(), &version).await {
            Err(error) => error,
            Ok(stream) => Box::pin(stream).try_next().await.unwrap_err(),
        };
        assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error:?}");
        assert_eq!(api.watchers(), 0);
        api.annotate(Kind::Pod, "team-a", "one", "note", Some("x"))
    });
}

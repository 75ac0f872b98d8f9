//! Watch events, built by hand.

use super::*;
use crate::core::{
    lookup::{LookupError, Origin, PodLookup as _, Query},
    namespace::Anchoring,
};
use serde_json::json;
use std::net::IpAddr;

fn object(uid: &str, last: u8) -> DeserializeGuard<Pod> {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"uid": uid, "namespace": "ns", "name": uid},
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{last}")},
    }))
    .unwrap()
}

fn bad(name: &str) -> DeserializeGuard<Pod> {
    let object: DeserializeGuard<Pod> = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"uid": name, "namespace": "ns", "name": name},
        "spec": {"containers": "not a list"},
    }))
    .unwrap();
    assert!(object.0.is_err());
    object
}

async fn find(cluster: &Cluster, last: u8) -> Result<String, LookupError> {
    let origin = Origin::Address(IpAddr::from([10, 0, 0, last]));
    let query = Query { origin, interface_age: None, wait: Duration::ZERO };
    cluster.find(query).await.map(|found| found.pod.uid.as_str().to_owned())
}

#[tokio::test]
async fn a_list_replaces_at_its_end_without_bad_objects() {
    let (cluster, metrics) = (Cluster::new(Anchoring::Strict), WatchMetrics::default());
    cluster.change(|index| index.reset_namespaces(vec![]));
    let mut feed = Feed { cluster: &cluster, metrics: &metrics, listed: Vec::new() };
    for event in [Event::Init, Event::InitApply(object("a", 1)), Event::InitApply(bad("b"))] {
        feed.take(event);
        assert_eq!(find(&cluster, 1).await, Err(LookupError::NotSynced), "not before the list is complete");
    }
    feed.take(Event::InitDone);
    assert_eq!(find(&cluster, 1).await, Ok("a".to_owned()));
    assert_eq!(metrics.skipped.get_or_create(&Pod::LABEL).get(), 1);

    // A relist that is interrupted and starts again: nothing of the first attempt remains.
    for event in [Event::Init, Event::InitApply(object("x", 9)), Event::Init, Event::InitApply(object("c", 3))] {
        feed.take(event);
        assert_eq!(find(&cluster, 1).await, Ok("a".to_owned()));
    }
    feed.take(Event::InitDone);
    assert_eq!(find(&cluster, 1).await, Err(LookupError::NotFound));
    assert_eq!(find(&cluster, 9).await, Err(LookupError::NotFound));
    assert_eq!(find(&cluster, 3).await, Ok("c".to_owned()));
}

#[tokio::test]
async fn an_unreadable_update_removes_the_pod() {
    let (cluster, metrics) = (Cluster::new(Anchoring::Strict), WatchMetrics::default());
    cluster.change(|index| index.reset_namespaces(vec![]));
    let mut feed = Feed { cluster: &cluster, metrics: &metrics, listed: Vec::new() };
    feed.take(Event::Init);
    feed.take(Event::InitDone);
    feed.take(Event::Apply(object("a", 1)));
    feed.take(Event::Apply(object("b", 2)));
    assert_eq!(find(&cluster, 1).await, Ok("a".to_owned()));
    feed.take(Event::Apply(bad("a")));
    assert_eq!(find(&cluster, 1).await, Err(LookupError::NotFound));
    feed.take(Event::Delete(object("b", 2)));
    assert_eq!(find(&cluster, 2).await, Err(LookupError::NotFound));
}

/// The watch never ends while the API server refuses requests, and retries with backoff.
#[tokio::test(start_paused = true)]
async fn a_refusing_api_server_is_retried_with_backoff() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Err::<http::Response<kube::client::Body>, tower::BoxError>("refused".into()) }
    });
    let client = Client::new(service, "default");
    let cluster = Arc::new(Cluster::new(Anchoring::Strict));
    let metrics = WatchMetrics::default();
    let watch = watch_pods(client, cluster, metrics.clone());
    assert!(tokio::time::timeout(Duration::from_secs(600), watch).await.is_err(), "it never ends");
    let (calls, errors) = (calls.load(Ordering::SeqCst), metrics.errors.get_or_create(&Pod::LABEL).get());
    assert!((30..80).contains(&calls), "{calls}");
    assert_eq!(errors, calls as u64);
}

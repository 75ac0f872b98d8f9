//! Events of a watch, built by hand.

use super::*;
use crate::core::{
    namespace::Anchoring,
    ports::{Asker, LookupError, PodLookup as _},
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
    let asker = Asker { address: IpAddr::from([10, 0, 0, last]), interface_age: None, wait: Duration::ZERO };
    cluster.find(asker).await.map(|found| found.pod.uid.as_str().to_owned())
}

#[tokio::test]
async fn a_list_is_gathered_then_swapped_in_and_a_bad_object_is_left_out() {
    let cluster = Arc::new(Cluster::new(Anchoring::Strict));
    cluster.reset_namespaces(vec![]);
    let (target, metrics) = (Pods(Arc::clone(&cluster)), WatchMetrics::default());
    let mut feed = Feed { target: &target, metrics: &metrics, listed: Vec::new() };
    for event in [Event::Init, Event::InitApply(object("a", 1)), Event::InitApply(bad("b"))] {
        feed.take(event);
        assert_eq!(find(&cluster, 1).await, Err(LookupError::NotSynced), "not before the list is whole");
    }
    feed.take(Event::InitDone);
    assert_eq!(find(&cluster, 1).await, Ok("a".to_owned()));
    assert_eq!(metrics.skipped.get_or_create(&Pods::LABEL).get(), 1);

    // A relist that breaks off and begins again: nothing of the first attempt stays.
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
async fn an_update_that_cannot_be_read_removes_what_was_known() {
    let cluster = Arc::new(Cluster::new(Anchoring::Strict));
    cluster.reset_namespaces(vec![]);
    let (target, metrics) = (Pods(Arc::clone(&cluster)), WatchMetrics::default());
    let mut feed = Feed { target: &target, metrics: &metrics, listed: Vec::new() };
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

//! The index, fed with facts. Includes the test cases of kiam (pkg/k8s of kiam v4.2).

use super::*;
use crate::core::namespace::{Anchoring, Permitted};
use std::time::Duration;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn pod(uid: &str, last: u8) -> PodFacts {
    PodFacts {
        uid: PodUid::parse(uid).unwrap(),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        addresses: vec![address(last)],
        on_node_network: false,
        active: true,
        node: "n1".to_owned(),
        role: Some(format!("role-of-{uid}")),
        session_name: None,
        external_id: None,
    }
}

fn done(uid: &str, last: u8) -> PodFacts {
    PodFacts { active: false, ..pod(uid, last) }
}

fn name(name: &str) -> PodName {
    PodName { namespace: "ns".to_owned(), name: name.to_owned() }
}

fn namespace(expression: &str) -> NamespaceFacts {
    NamespaceFacts { name: "ns".to_owned(), permitted: Permitted::compile(expression, Anchoring::Strict) }
}

fn listed(pods: Vec<PodFacts>, now: Instant) -> Index {
    let mut index = Index::default();
    index.reset_pods(pods, now);
    index.reset_namespaces(vec![namespace(".*")]);
    index
}

fn found(index: &Index, last: u8) -> Result<String, LookupError> {
    index.find(&at(last), None).map(|hit| hit.pod.uid.as_str().to_owned())
}

fn at(last: u8) -> Origin {
    Origin::Address(address(last))
}

fn uid(text: &str) -> PodUid {
    PodUid::parse(text).unwrap()
}

fn both(index: &Index, last: u8, text: &str) -> Result<String, LookupError> {
    let born = Instant::now() + seconds(3600);
    index.find(&Origin::Both(address(last), uid(text)), Some(born)).map(|hit| hit.pod.uid.as_str().to_owned())
}

fn by_uid(index: &Index, text: &str) -> Result<String, LookupError> {
    index.find(&Origin::Uid(uid(text)), None).map(|hit| hit.pod.uid.as_str().to_owned())
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test]
async fn lookups_fail_before_both_lists() {
    let now = Instant::now();
    let mut index = Index::default();
    assert_eq!(found(&index, 1), Err(LookupError::NotSynced));
    index.reset_pods(vec![pod("a", 1)], now);
    assert_eq!(found(&index, 1), Err(LookupError::NotSynced));
    index.reset_namespaces(vec![]);
    assert_eq!(found(&index, 1), Ok("a".to_owned()));
    assert!(index.find(&at(1), None).unwrap().namespace.is_none());
}

#[tokio::test]
async fn finds_the_running_pod_next_to_one_that_ended() {
    let index = listed(vec![done("failed", 1), pod("running", 1)], Instant::now());
    assert_eq!(found(&index, 1), Ok("running".to_owned()));
    assert_eq!(found(&index, 2), Err(LookupError::NotFound));
}

#[tokio::test]
async fn two_pods_at_an_address_are_ambiguous() {
    let mut index = listed(vec![pod("a", 1), pod("b", 1)], Instant::now());
    assert_eq!(found(&index, 1), Err(LookupError::Ambiguous));
    index.remove_pod(&name("a"));
    assert_eq!(found(&index, 1), Ok("b".to_owned()));
}

#[tokio::test]
async fn the_interfaces_age_excludes_former_pods() {
    let start = Instant::now();
    let mut index = listed(vec![pod("old", 1)], start);
    let born = start + seconds(60);
    let find = |index: &Index| index.find(&at(1), Some(born)).map(|hit| hit.pod.uid.as_str().to_owned());
    assert_eq!(find(&index), Err(LookupError::NotFound), "only the old pod is known");
    index.apply_pod(pod("new", 1), born + seconds(1));
    assert_eq!(find(&index), Ok("new".to_owned()), "the old one is not gone yet");
    assert_eq!(found(&index, 1), Err(LookupError::Ambiguous));
    index.remove_pod(&name("old"));
    assert_eq!(find(&index), Ok("new".to_owned()));
}

#[tokio::test]
async fn a_uid_decides_among_pods_at_an_address() {
    let mut index = listed(vec![pod("leaving", 1)], Instant::now());
    assert_eq!(both(&index, 1, "leaving"), Ok("leaving".to_owned()));
    assert_eq!(both(&index, 1, "successor"), Err(LookupError::NotFound), "the watch is behind");
    index.apply_pod(PodFacts { addresses: vec![], ..pod("successor", 1) }, Instant::now());
    assert_eq!(both(&index, 1, "successor"), Err(LookupError::NotFound), "its address is not known yet");
    index.apply_pod(pod("successor", 1), Instant::now());
    assert_eq!(found(&index, 1), Err(LookupError::Ambiguous));
    for uid in ["leaving", "successor"] {
        assert_eq!(both(&index, 1, uid), Ok(uid.to_owned()));
    }
    assert_eq!(both(&index, 1, "stranger"), Err(LookupError::NotFound));
    index.apply_pod(done("leaving", 1), Instant::now());
    assert_eq!(both(&index, 1, "leaving"), Err(LookupError::NotFound));
}

#[tokio::test]
async fn a_pod_at_another_address_is_a_contradiction() {
    let host = PodFacts { addresses: vec![], on_node_network: true, ..pod("host", 9) };
    let index = listed(vec![pod("a", 1), pod("b", 2), host], Instant::now());
    for (last, uid) in [(2, "a"), (1, "b"), (3, "a"), (1, "host"), (3, "host")] {
        assert_eq!(both(&index, last, uid), Err(LookupError::Contradiction), "{uid} at {last}");
    }
}

#[tokio::test]
async fn active_pods_are_found_by_uid_alone() {
    let host = PodFacts { addresses: vec![], on_node_network: true, ..pod("host", 9) };
    let ended = PodFacts { active: false, name: "ended".to_owned(), uid: uid("ended"), ..host.clone() };
    let index = listed(vec![pod("a", 1), host, ended], Instant::now());
    assert_eq!(by_uid(&index, "host"), Ok("host".to_owned()));
    assert_eq!(by_uid(&index, "a"), Ok("a".to_owned()));
    assert_eq!(by_uid(&index, "ended"), Err(LookupError::NotFound));
    assert_eq!(by_uid(&index, "stranger"), Err(LookupError::NotFound));
    assert_eq!(Index::default().find(&Origin::Uid(uid("host")), None).err(), Some(LookupError::NotSynced));
}

#[tokio::test]
async fn a_sighting_survives_updates_and_relists() {
    let start = Instant::now();
    let since = |index: &Index, last: u8| index.find(&at(last), None).unwrap().since.unwrap();
    let mut index = listed(vec![pod("a", 1)], start);
    index.apply_pod(PodFacts { role: None, ..pod("a", 1) }, start + seconds(1));
    assert_eq!(since(&index, 1), start);
    index.reset_pods(vec![pod("a", 1)], start + seconds(2));
    assert_eq!(since(&index, 1), start);
    index.apply_pod(pod("a", 2), start + seconds(3));
    assert_eq!(since(&index, 2), start + seconds(3));
    assert_eq!(found(&index, 1), Err(LookupError::NotFound));
    index.apply_pod(PodFacts { name: "a".to_owned(), ..pod("b", 2) }, start + seconds(4));
    assert_eq!(since(&index, 2), start + seconds(4));
    assert_eq!(found(&index, 2), Ok("b".to_owned()), "the former pod of this name is gone");
}

#[tokio::test]
async fn a_list_replaces_all_pods() {
    let mut index = listed(vec![pod("a", 1), pod("b", 2)], Instant::now());
    index.reset_pods(vec![pod("b", 2), pod("c", 3)], Instant::now());
    assert_eq!(found(&index, 1), Err(LookupError::NotFound));
    assert_eq!((found(&index, 2), found(&index, 3)), (Ok("b".to_owned()), Ok("c".to_owned())));
    assert!(!index.names.contains_key(&name("a")));
}

#[tokio::test]
async fn a_pod_that_ends_loses_its_address() {
    let mut index = listed(vec![pod("a", 1)], Instant::now());
    index.apply_pod(done("a", 1), Instant::now());
    assert_eq!(found(&index, 1), Err(LookupError::NotFound));
    assert!(index.addresses.is_empty());
}

#[tokio::test]
async fn each_change_is_taken_once() {
    let mut index = listed(vec![pod("a", 1), pod("b", 2)], Instant::now());
    assert_eq!(index.take_changed(1).len(), 1);
    assert_eq!(index.take_changed(10).len(), 1);
    assert!(index.take_changed(10).is_empty());
    index.apply_pod(pod("a", 1), Instant::now());
    assert!(index.take_changed(10).is_empty(), "nothing new");
    index.apply_pod(PodFacts { role: Some("other".to_owned()), ..pod("a", 1) }, Instant::now());
    assert_eq!(index.take_changed(10).len(), 1);
    index.remove_pod(&name("b"));
    assert!(matches!(index.take_changed(10).as_slice(), [PodChange { now: None, .. }]));
    index.apply_namespace(namespace(""));
    let changed = index.take_changed(10);
    let [PodChange { now: Some((_, Some(namespace))), .. }] = changed.as_slice() else { panic!("{changed:?}") };
    assert!(!namespace.permitted.is_of(".*"));
}

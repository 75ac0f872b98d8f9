//! Tests of the takeover protocol, with both sides in one process.

use super::*;
use crate::datapath::node::interface_ages::InterfaceAges;
use futures::FutureExt as _;
use std::time::Instant;
use tokio::{net::UnixListener, time::timeout};

fn run_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn listen(run_dir: &tempfile::TempDir) -> Successors {
    Successors::listen(run_dir.path(), InterfaceAges::default()).unwrap()
}

async fn request_served(run_dir: &tempfile::TempDir) -> Predecessor {
    request(run_dir.path()).await.unwrap().expect("it answers")
}

#[tokio::test]
async fn takeover_is_requested_taken_and_confirmed() {
    let run_dir = run_dir();
    let mut successors = listen(&run_dir);
    let mut predecessor = request_served(&run_dir).await;
    assert!(successors.next().now_or_never().is_none(), "it has not sent Take");
    let handing_over = async { successors.next().await.unwrap().hand_over(1).await };
    let (handed_over, ()) = tokio::join!(handing_over, async {
        predecessor.take_datapath().await;
        predecessor.done().await;
    });
    handed_over.unwrap();
}

#[tokio::test]
async fn successor_that_ends_early_has_not_taken_over() {
    let run_dir = run_dir();
    let mut successors = listen(&run_dir);
    let mut predecessor = request_served(&run_dir).await;
    let handing_over = async { successors.next().await.unwrap().hand_over(1).await };
    let (handed_over, ()) = tokio::join!(handing_over, async {
        predecessor.take_datapath().await;
        drop(predecessor);
    });
    assert_eq!(handed_over.unwrap_err().to_string(), "it has disconnected");
}

#[tokio::test]
async fn absent_agent_is_not_waited_for() {
    let run_dir = run_dir();
    let start = Instant::now();
    assert!(request(run_dir.path()).await.unwrap().is_none());
    // Killed: its socket is there still.
    drop(UnixListener::bind(socket(run_dir.path())).unwrap());
    assert!(request(run_dir.path()).await.unwrap().is_none());
    until_agent_ends(run_dir.path()).await;
    assert!(!is_served(run_dir.path()).await);
    assert!(start.elapsed() < ANSWER_TIMEOUT);
}

#[tokio::test]
async fn silent_agent_is_given_up() {
    let run_dir = run_dir();
    let _stopped = UnixListener::bind(socket(run_dir.path())).unwrap();
    let start = Instant::now();
    assert!(request(run_dir.path()).await.unwrap().is_none());
    assert!(start.elapsed() >= ANSWER_TIMEOUT);
}

#[tokio::test]
async fn watch_ends_with_the_active_agent() {
    let run_dir = run_dir();
    let successors = listen(&run_dir);
    let mut watched = std::pin::pin!(until_agent_ends(run_dir.path()));
    let early = timeout(Duration::from_millis(200), &mut watched).await;
    assert!(early.is_err(), "the agent still runs");
    drop(successors);
    watched.await;
}

#[tokio::test]
async fn new_active_agent_replaces_the_socket() {
    let run_dir = run_dir();
    let old = listen(&run_dir);
    let mut new = listen(&run_dir);
    drop(old);
    let mut predecessor = request_served(&run_dir).await;
    let handing_over = async { new.next().await.unwrap().hand_over(1).await };
    let (handed_over, ()) = tokio::join!(handing_over, async {
        predecessor.take_datapath().await;
        predecessor.done().await;
    });
    handed_over.unwrap();
}

#[tokio::test]
async fn both_sides_refuse_another_protocol_version() {
    let run_dir = run_dir();
    let _successors = listen(&run_dir);
    let mut stranger = Wire::new(UnixStream::connect(socket(run_dir.path())).await.unwrap());
    stranger.writer.write_all(b"{\"protocol\":2,\"please\":{}}\n").await.unwrap();
    // Whatever else the answer contains, it has the version.
    let mut answer = String::new();
    stranger.reader.read_line(&mut answer).await.unwrap();
    assert!(answer.contains("\"protocol\":1"), "{answer}");

    let run_dir = self::run_dir();
    let listener = UnixListener::bind(socket(run_dir.path())).unwrap();
    let stranger = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"protocol\":2,\"thanks\":{}}\n").await.unwrap();
        stream
    };
    let (asked, _stream) = tokio::join!(request(run_dir.path()), stranger);
    let Err(error) = asked else { panic!("understood") };
    let text = format!("{error:#}");
    assert!(text.contains("stop it first") && text.contains("version 2"), "{text}");
}

#[tokio::test]
async fn one_agent_at_a_time_takes_over() {
    let run_dir = run_dir();
    let takeover_lock = TakeoverLock::acquire(run_dir.path()).await.unwrap();
    let Err(error) = TakeoverLock::acquire(run_dir.path()).await else { panic!("two at a time") };
    assert!(error.to_string().contains("upgrade.lock"), "{error:#}");
    drop(takeover_lock);
    TakeoverLock::acquire(run_dir.path()).await.unwrap();
}

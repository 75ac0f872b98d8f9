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

async fn ask_living(run_dir: &tempfile::TempDir) -> Predecessor {
    ask(run_dir.path()).await.unwrap().expect("it lives")
}

#[tokio::test]
async fn one_asks_takes_and_is_done() {
    let run_dir = run_dir();
    let mut successors = listen(&run_dir);
    let mut newcomer = ask_living(&run_dir).await;
    assert!(successors.next().now_or_never().is_none(), "it has not said that it could serve");
    let owner = async { successors.next().await.unwrap().take_over(1).await };
    let (handed_over, ()) = tokio::join!(owner, async {
        newcomer.take().await;
        newcomer.done().await;
    });
    handed_over.unwrap();
}

#[tokio::test]
async fn one_that_goes_before_it_is_done_has_not_taken_over() {
    let run_dir = run_dir();
    let mut successors = listen(&run_dir);
    let mut newcomer = ask_living(&run_dir).await;
    let owner = async { successors.next().await.unwrap().take_over(1).await };
    let (handed_over, ()) = tokio::join!(owner, async {
        newcomer.take().await;
        drop(newcomer);
    });
    assert_eq!(handed_over.unwrap_err().to_string(), "it has gone");
}

#[tokio::test]
async fn who_is_not_there_is_not_waited_for() {
    let run_dir = run_dir();
    let start = Instant::now();
    assert!(ask(run_dir.path()).await.unwrap().is_none());
    // Killed: its socket is there still.
    drop(UnixListener::bind(socket(run_dir.path())).unwrap());
    assert!(ask(run_dir.path()).await.unwrap().is_none());
    watch(run_dir.path()).await;
    assert!(!is_answered(run_dir.path()).await);
    assert!(start.elapsed() < ANSWER_TIMEOUT);
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let run_dir = run_dir();
    let _stopped = UnixListener::bind(socket(run_dir.path())).unwrap();
    let start = Instant::now();
    assert!(ask(run_dir.path()).await.unwrap().is_none());
    assert!(start.elapsed() >= ANSWER_TIMEOUT);
}

#[tokio::test]
async fn the_watch_ends_with_the_owner() {
    let run_dir = run_dir();
    let successors = listen(&run_dir);
    let mut watched = std::pin::pin!(watch(run_dir.path()));
    let early = timeout(Duration::from_millis(200), &mut watched).await;
    assert!(early.is_err(), "the owner is there");
    drop(successors);
    watched.await;
}

#[tokio::test]
async fn a_new_owner_listens_in_the_place_of_the_old_one() {
    let run_dir = run_dir();
    let old = listen(&run_dir);
    let mut new = listen(&run_dir);
    drop(old);
    let mut newcomer = ask_living(&run_dir).await;
    let owner = async { new.next().await.unwrap().take_over(1).await };
    let (handed_over, ()) = tokio::join!(owner, async {
        newcomer.take().await;
        newcomer.done().await;
    });
    handed_over.unwrap();
}

#[tokio::test]
async fn another_version_of_the_language_is_refused_by_both() {
    let run_dir = run_dir();
    let _successors = listen(&run_dir);
    let mut stranger = Wire::new(UnixStream::connect(socket(run_dir.path())).await.unwrap());
    stranger.writer.write_all(b"{\"protocol\":2,\"please\":{}}\n").await.unwrap();
    // Whatever the answer says, the version tells.
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
    let (asked, _stream) = tokio::join!(ask(run_dir.path()), stranger);
    let Err(error) = asked else { panic!("understood") };
    let text = format!("{error:#}");
    assert!(text.contains("stop it first") && text.contains("version 2"), "{text}");
}

#[tokio::test]
async fn one_at_a_time_becomes_the_owner() {
    let run_dir = run_dir();
    let takeover_lock = TakeoverLock::soon(run_dir.path()).await.unwrap();
    let Err(error) = TakeoverLock::soon(run_dir.path()).await else { panic!("two at a time") };
    assert!(error.to_string().contains("upgrade.lock"), "{error:#}");
    drop(takeover_lock);
    TakeoverLock::soon(run_dir.path()).await.unwrap();
}

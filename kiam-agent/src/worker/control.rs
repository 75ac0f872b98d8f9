//! The worker's end of the control socket: what the parent tells, and the bytes that tell it how the worker is.

use crate::{
    imds::Interfaces,
    report::Status,
    worker_protocol::{ToParent, ToWorker},
};
use anyhow::{Context as _, bail};
use std::{io, os::unix::net::UnixStream as StdUnixStream, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::watch::{self, error::RecvError},
    time::{MissedTickBehavior, interval},
};

/// How often the parent is told that the worker lives.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest message of the parent, bytes: a status of 8,192 interfaces with eight counters of 80 bytes each.
const MESSAGE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// What the parent tells, each as of its last message.
pub(super) struct News {
    pub(super) interfaces: watch::Sender<Arc<Interfaces>>,
    pub(super) status: watch::Sender<Status>,
}

/// Splits the socket.
///
/// # Errors
/// The kernel's.
pub(super) fn open(control: StdUnixStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    control.set_nonblocking(true)?;
    Ok(UnixStream::from_std(control)?.into_split())
}

/// Follows the parent until it says stop.
///
/// # Errors
/// It is gone, or talks nonsense.
pub(super) async fn listen(socket: OwnedReadHalf, news: &News) -> anyhow::Result<()> {
    let mut lines = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(MESSAGE_LEN_MAX).read_until(b'\n', &mut line).await;
        read.context("reading from the parent")?;
        if line.pop() != Some(b'\n') {
            bail!("the parent is gone");
        }
        match serde_json::from_slice(&line).context("a message of the parent's")? {
            ToWorker::Interfaces(interfaces) => {
                news.interfaces.send_replace(Arc::new(Interfaces::new(&interfaces)));
            }
            ToWorker::Status(status) => {
                news.status.send_replace(status);
            }
            ToWorker::Stop => return Ok(()),
        }
    }
}

/// Tells the parent that the worker is ready, then that it lives, and when a server was reached. Never returns.
pub(super) async fn tell(mut socket: OwnedWriteHalf, mut reached: watch::Receiver<bool>) {
    send(&mut socket, ToParent::Ready).await;
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        let message = tokio::select! {
            _ = heartbeat.tick() => ToParent::Heartbeat,
            // Without a connector nothing can be reached any more; the select goes on with the heartbeat.
            Ok(()) = until_true(&mut reached), if !told => ToParent::ServerReached,
        };
        told |= message == ToParent::ServerReached;
        send(&mut socket, message).await;
    }
}

async fn until_true(value: &mut watch::Receiver<bool>) -> Result<(), RecvError> {
    value.wait_for(|value| *value).await.map(drop)
}

/// Only waits while the parent does not read at all; then it has other troubles, and is about to end this process.
async fn send(socket: &mut OwnedWriteHalf, message: ToParent) {
    if let Err(error) = socket.write_all(&[message.byte()]).await {
        tracing::debug!(%error, ?message, "the parent was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Interface, InterfaceKind};
    use std::io::Write as _;

    fn news() -> (News, watch::Receiver<Arc<Interfaces>>, watch::Receiver<Status>) {
        let (interfaces, seen_interfaces) = watch::channel(Arc::default());
        let (status, seen_status) = watch::channel(Status::default());
        (News { interfaces, status }, seen_interfaces, seen_status)
    }

    fn line(message: &ToWorker) -> Vec<u8> {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        line
    }

    #[tokio::test]
    async fn the_parents_words_are_followed_until_it_is_gone() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        let (news, interfaces, status) = news();
        let told = vec![Interface {
            index: 3,
            name: "cali1".into(),
            first_seen_ms: Some(1),
            bridge: None,
            kind: InterfaceKind::Veth,
        }];
        parent.write_all(&line(&ToWorker::Interfaces(told.clone()))).unwrap();
        parent.write_all(&line(&ToWorker::Status(Status { worker_starts: 7, ..Status::default() }))).unwrap();
        drop(parent);
        let (reader, _writer) = open(worker).unwrap();
        let error = listen(reader, &news).await.unwrap_err();
        assert!(error.to_string().contains("the parent is gone"), "{error:#}");
        assert_eq!(**interfaces.borrow(), Interfaces::new(&told));
        assert_eq!(status.borrow().worker_starts, 7);
    }

    #[tokio::test]
    async fn stop_is_heard() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        parent.write_all(&line(&ToWorker::Stop)).unwrap();
        let (reader, _writer) = open(worker).unwrap();
        listen(reader, &news().0).await.unwrap();
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        parent.write_all(b"{\"Interfaces\":12}\n").unwrap();
        let (reader, _writer) = open(worker).unwrap();
        assert!(listen(reader, &news().0).await.is_err());
    }

    #[tokio::test]
    async fn the_parent_is_told() {
        let (parent, worker) = StdUnixStream::pair().unwrap();
        let (_reader, writer) = open(worker).unwrap();
        let (reached, seen) = watch::channel(false);
        let teller = tokio::spawn(tell(writer, seen));
        parent.set_nonblocking(true).unwrap();
        let mut parent = UnixStream::from_std(parent).unwrap();
        let mut bytes = [0; 2];
        parent.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"RH");
        reached.send_replace(true);
        let mut byte = [0];
        parent.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"S");
        parent.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"H");
        teller.abort();
    }
}

//! The worker's end of the control socket: reads the parent's messages, and sends it the state of the worker.

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

/// Time between heartbeats to the parent.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest message of the parent in bytes: a status of 8,192 interfaces with eight counters of 80 bytes each.
const MESSAGE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Publishes the contents of the parent's messages.
pub(super) struct News {
    pub(super) interfaces: watch::Sender<Arc<Interfaces>>,
    pub(super) status: watch::Sender<Status>,
}

/// Splits the socket.
pub(super) fn open(control: StdUnixStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    control.set_nonblocking(true)?;
    Ok(UnixStream::from_std(control)?.into_split())
}

/// Reads the parent's messages until it sends `Stop`. Fails if the parent ends or a message is invalid.
pub(super) async fn listen(socket: OwnedReadHalf, news: &News) -> anyhow::Result<()> {
    let mut lines = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(MESSAGE_LEN_MAX).read_until(b'\n', &mut line).await;
        read.context("reading from the parent")?;
        if line.pop() != Some(b'\n') {
            bail!("the parent has ended");
        }
        match serde_json::from_slice(&line).context("an invalid message of the parent")? {
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

/// Sends `Ready`, heartbeats, and `ServerReached` once a server was reached. Never returns.
pub(super) async fn report(mut socket: OwnedWriteHalf, mut reached: watch::Receiver<bool>) {
    send(&mut socket, ToParent::Ready).await;
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = false;
    loop {
        let message = tokio::select! {
            _ = heartbeat.tick() => ToParent::Heartbeat,
            // Fails without a connector; the select then continues with heartbeats.
            Ok(()) = until_true(&mut reached), if !reported => ToParent::ServerReached,
        };
        reported |= message == ToParent::ServerReached;
        send(&mut socket, message).await;
    }
}

async fn until_true(value: &mut watch::Receiver<bool>) -> Result<(), RecvError> {
    value.wait_for(|value| *value).await.map(drop)
}

/// Sends a message. This blocks only if the parent has stopped reading, and then it is about to kill this process.
async fn send(socket: &mut OwnedWriteHalf, message: ToParent) {
    if let Err(error) = socket.write_all(&[message.byte()]).await {
        tracing::debug!(%error, ?message, "cannot send a message to the parent");
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
    async fn messages_are_published_until_the_parent_ends() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        let (news, interfaces, status) = news();
        let sent = vec![Interface {
            index: 3,
            name: "cali1".into(),
            first_seen_ms: Some(1),
            bridge: None,
            kind: InterfaceKind::Veth,
        }];
        parent.write_all(&line(&ToWorker::Interfaces(sent.clone()))).unwrap();
        parent.write_all(&line(&ToWorker::Status(Status { worker_starts: 7, ..Status::default() }))).unwrap();
        drop(parent);
        let (reader, _writer) = open(worker).unwrap();
        let error = listen(reader, &news).await.unwrap_err();
        assert!(error.to_string().contains("the parent has ended"), "{error:#}");
        assert_eq!(**interfaces.borrow(), Interfaces::new(&sent));
        assert_eq!(status.borrow().worker_starts, 7);
    }

    #[tokio::test]
    async fn stop_ends_the_reader() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        parent.write_all(&line(&ToWorker::Stop)).unwrap();
        let (reader, _writer) = open(worker).unwrap();
        listen(reader, &news().0).await.unwrap();
    }

    #[tokio::test]
    async fn invalid_message_is_an_error() {
        let (mut parent, worker) = StdUnixStream::pair().unwrap();
        parent.write_all(b"{\"Interfaces\":12}\n").unwrap();
        let (reader, _writer) = open(worker).unwrap();
        assert!(listen(reader, &news().0).await.is_err());
    }

    #[tokio::test]
    async fn state_is_reported() {
        let (parent, worker) = StdUnixStream::pair().unwrap();
        let (_reader, writer) = open(worker).unwrap();
        let (reached, seen) = watch::channel(false);
        let reporter = tokio::spawn(report(writer, seen));
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
        reporter.abort();
    }
}

//! Sends a fixed answer while no worker runs: an SDK retries a 503 at once, but hangs if its connection is not
//! accepted.

use super::channels::{Channels, WorkerState};
use crate::worker_protocol::is_shared;
use std::{net, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// Answer to every connection, whatever the request.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 46\r\n\
    Retry-After: 1\r\n\
    Server: EC2ws\r\n\
    Connection: close\r\n\
    \r\n\
    the kiam agent restarts: ask again in a second";
/// Input that is read and discarded: closing a connection with unread input resets it, and the answer is lost.
const DISCARD_LEN_MAX: u64 = 16 * 1024;
/// Time for answering and discarding.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);
/// Connections answered at the same time; further ones wait in the accept queue.
const CONCURRENT: usize = 256;
/// Pause after a failed accept: no descriptors are left, and some must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts on the worker's sockets while no worker runs.
pub(super) struct Fallback {
    listeners: Vec<TcpListener>,
    slots: Arc<Semaphore>,
}

impl Fallback {
    /// Copies the sockets on loopback. The other listeners are reachable by anyone; their connections wait for the
    /// worker, which can identify the pod.
    pub(super) fn new(listeners: &[net::TcpListener]) -> anyhow::Result<Self> {
        let mut copies = Vec::new();
        for listener in listeners.iter().filter(|listener| is_shared(listener)) {
            copies.push(TcpListener::from_std(listener.try_clone()?)?);
        }
        Ok(Self { listeners: copies, slots: Arc::new(Semaphore::new(CONCURRENT)) })
    }

    /// Runs as long as the agent.
    pub(super) async fn run(&self, channels: &Channels) {
        let all = self.listeners.iter().map(|listener| self.accept_on(listener, channels));
        futures::future::join_all(all).await;
    }

    /// Waits until every accepted connection has its answer: the end of the process would reset it.
    pub(super) async fn answered(&self) {
        let all = u32::try_from(CONCURRENT).unwrap_or(u32::MAX);
        if self.slots.acquire_many(all).await.is_err() {
            tracing::debug!("cannot wait for the fixed answers: their semaphore is closed");
        }
    }

    async fn accept_on(&self, listener: &TcpListener, channels: &Channels) {
        let mut worker = channels.worker.subscribe();
        // Both waits fail when the agent ends.
        while wait_for_worker(&mut worker, false).await {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            tokio::select! {
                biased;
                _ = wait_for_worker(&mut worker, true) => {}
                accepted = listener.accept() => match accepted {
                    Ok((connection, _)) => {
                        channels.status.send_modify(|status| status.fallback_answers += 1);
                        tokio::spawn(async move {
                            answer(connection).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept a connection: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Waits until the worker is ready, or not. Returns false if the channel is closed.
async fn wait_for_worker(worker: &mut watch::Receiver<WorkerState>, ready: bool) -> bool {
    worker.wait_for(|state| state.ready == ready).await.is_ok()
}

/// Answers, then reads what the client still sends, so that the answer arrives.
async fn answer(mut connection: TcpStream) {
    let answered = timeout(DISCARD_TIME_MAX, async {
        connection.write_all(ANSWER).await?;
        connection.shutdown().await?;
        tokio::io::copy(&mut connection.take(DISCARD_LEN_MAX), &mut tokio::io::sink()).await
    });
    // A timeout, or a client that has disconnected, needs no reaction.
    if let Ok(Err(error)) = answered.await {
        tracing::debug!("cannot send the fixed answer: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_correct() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    }
}

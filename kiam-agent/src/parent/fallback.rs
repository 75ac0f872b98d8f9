//! The fixed answer while no worker runs: an SDK retries a 503 at once, and hangs on a socket that nobody accepts on.

use super::{channels::Channels, worker::WorkerState};
use std::{net, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// What every connection gets, whatever it asks.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 46\r\n\
    Retry-After: 1\r\n\
    Server: EC2ws\r\n\
    Connection: close\r\n\
    \r\n\
    the kiam agent restarts: ask again in a second";
/// Unread input of a closed connection resets it, and the answer with it: this much is read and thrown away…
const DISCARD_LEN_MAX: u64 = 16 * 1024;
/// …for this long at most.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);
/// Connections answered at one time; further ones wait in the accept queue.
const CONCURRENT: usize = 256;
/// Pause after a failed accept: it fails for want of descriptors, which others must give back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts on the sockets that the worker has too, as long as no worker runs.
pub(super) struct Fallback {
    listeners: Vec<TcpListener>,
    slots: Arc<Semaphore>,
}

impl Fallback {
    /// Takes copies of the sockets on loopback. Whoever comes to another one may be anybody, and waits for the worker,
    /// which can tell.
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub(super) fn new(listeners: &[net::TcpListener]) -> anyhow::Result<Self> {
        let mut copies = Vec::new();
        for listener in listeners.iter().filter(|listener| serves(listener)) {
            copies.push(TcpListener::from_std(listener.try_clone()?)?);
        }
        Ok(Self { listeners: copies, slots: Arc::new(Semaphore::new(CONCURRENT)) })
    }

    /// Runs as long as the agent.
    pub(super) async fn run(&self, channels: &Channels) {
        let all = self.listeners.iter().map(|listener| self.accept_on(listener, channels));
        futures::future::join_all(all).await;
    }

    /// Waits until each connection that was accepted has its answer: the end of the process would reset it.
    pub(super) async fn answered(&self) {
        let all = u32::try_from(CONCURRENT).unwrap_or(u32::MAX);
        if self.slots.acquire_many(all).await.is_err() {
            tracing::debug!("the count of answers ended before they did");
        }
    }

    async fn accept_on(&self, listener: &TcpListener, channels: &Channels) {
        let mut worker = channels.worker.subscribe();
        // Both fail when the agent ends.
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

/// Whether this is a socket that the parent may answer on.
pub(super) fn serves(listener: &net::TcpListener) -> bool {
    listener.local_addr().is_ok_and(|address| address.ip().is_loopback())
}

/// False when nobody will tell any more.
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
    // When the client's time is over, or it has gone, nothing more is to be done for it.
    if let Ok(Err(error)) = answered.await {
        tracing::debug!("answering without a worker: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_its_own_length() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    }
}

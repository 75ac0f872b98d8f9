//! Starts the worker, restarts it when it ends, and exchanges messages with it.

use super::{attestor::Attestor, channels::Channels};
use crate::worker_protocol::{self, TOKEN_KEY_LEN, ToParent, ToWorker};
use anyhow::{Context as _, bail};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use kiam_common::secret::Secret;
use std::{
    env,
    net::TcpListener,
    os::{fd::AsFd as _, unix::net},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// A worker that has been silent for longer hangs: it sends a heartbeat each second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Time that the worker has to finish its requests before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);
/// Time that a killed worker has to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause before a worker is restarted.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(10);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A worker that ran for longer was healthy: the next one is started at once.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);

/// Keeps a worker running.
pub(super) struct Supervisor {
    listeners: Vec<TcpListener>,
    token_key: Secret<[u8; TOKEN_KEY_LEN]>,
    attestor: Attestor,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    control: OwnedWriteHalf,
}

impl Supervisor {
    /// Copies the sockets.
    pub(super) fn new(
        listeners: &[TcpListener],
        token_key: Secret<[u8; TOKEN_KEY_LEN]>,
        attestor: Attestor,
    ) -> anyhow::Result<Self> {
        let listeners = listeners.iter().map(TcpListener::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { listeners, token_key, attestor, running: Mutex::new(None) })
    }

    /// Runs as long as the agent. A worker that cannot be started is retried; meanwhile pods get the fixed answer.
    ///
    /// # Errors
    /// A worker hangs and cannot be killed: the agent must end, and the kernel then kills the worker.
    pub(super) async fn run(&self, channels: &Channels) -> anyhow::Result<()> {
        let mut backoff = backoff();
        loop {
            let started = Instant::now();
            let ended = match self.start(channels).await {
                Ok(reader) => self.converse(reader, channels).await,
                // It may have ended already.
                Err(error) => Err(error.context("starting the worker")),
            };
            channels.worker.send_modify(|worker| worker.ready = false);
            let status = self.reap().await?;
            match ended {
                Ok(()) => tracing::error!("the worker ended: {status}; restarting it"),
                Err(error) => tracing::error!("the worker failed: {error:#}; restarting it"),
            }
            if started.elapsed() > BACKOFF_RESET_AFTER {
                backoff = self::backoff();
            }
            sleep(backoff.next().unwrap_or(RESTART_PAUSE_MAX)).await;
        }
    }

    /// Asks the worker to stop, waits for it, and kills it when it takes too long.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        if self.running.lock().await.is_none() {
            return Ok(());
        }
        if let Err(error) = self.write(&ToWorker::Stop).await {
            tracing::debug!("cannot ask the worker to stop: {error:#}");
        }
        let Some(mut worker) = self.running.lock().await.take() else { return Ok(()) };
        match timeout(STOP_TIMEOUT, worker.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => end(&mut worker.child).await.map(drop),
        }
    }

    async fn start(&self, channels: &Channels) -> anyhow::Result<OwnedReadHalf> {
        let (ours, theirs) = net::UnixStream::pair()?;
        let thread = self.attestor.start().context("starting the attestor")?;
        let child = Command::new(env::current_exe()?)
            .arg("worker")
            .args(env::args_os().skip(1))
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .kill_on_drop(true)
            .spawn()?;
        ours.set_nonblocking(true)?;
        let (reader, control) = UnixStream::from_std(ours.try_clone()?)?.into_split();
        *self.running.lock().await = Some(Running { child, control });
        worker_protocol::send(&ours, thread.as_fd(), &self.listeners, &self.token_key)
            .context("handing over the sockets")?;
        channels.status.send_modify(|status| status.worker_starts += 1);
        Ok(reader)
    }

    /// Exchanges messages with the worker until it ends; an error means that it must be killed.
    async fn converse(&self, reader: OwnedReadHalf, channels: &Channels) -> anyhow::Result<()> {
        tokio::select! {
            // Reading first: it detects a worker that has ended, even if a message to it has failed.
            biased;
            ended = listen(reader, channels) => ended,
            failed = self.send_news(channels) => failed,
        }
    }

    /// Sends the interfaces and the status whenever they change.
    async fn send_news(&self, channels: &Channels) -> anyhow::Result<()> {
        let (mut interfaces, mut status) = (channels.interfaces.subscribe(), channels.status.subscribe());
        interfaces.mark_changed();
        status.mark_changed();
        loop {
            let message = tokio::select! {
                biased;
                changed = interfaces.changed() => {
                    changed?;
                    ToWorker::Interfaces(interfaces.borrow_and_update().clone())
                }
                changed = status.changed() => {
                    changed?;
                    ToWorker::Status(status.borrow_and_update().clone())
                }
            };
            self.write(&message).await?;
        }
    }

    async fn write(&self, message: &ToWorker) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut running = self.running.lock().await;
        let Some(Running { control, .. }) = running.as_mut() else { bail!("no worker runs") };
        match timeout(SILENCE_MAX, control.write_all(&line)).await {
            Ok(written) => written.context("writing to the worker"),
            Err(_) => bail!("it does not read its messages"),
        }
    }

    /// Kills the worker if it still runs, and returns its exit status.
    async fn reap(&self) -> anyhow::Result<String> {
        let Some(mut worker) = self.running.lock().await.take() else { return Ok("it was not started".to_owned()) };
        end(&mut worker.child).await
    }
}

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(RESTART_PAUSE_MIN)
        .with_max_delay(RESTART_PAUSE_MAX)
        .without_max_times()
        .build()
}

/// Reads the worker's messages; returns when the worker has ended.
async fn listen(mut reader: OwnedReadHalf, channels: &Channels) -> anyhow::Result<()> {
    let mut byte = [0];
    loop {
        let Ok(read) = timeout(SILENCE_MAX, reader.read(&mut byte)).await else {
            bail!("it has sent no heartbeat for {} s", SILENCE_MAX.as_secs());
        };
        if matches!(read, Ok(0) | Err(_)) {
            return Ok(());
        }
        match ToParent::from_byte(byte[0]) {
            Some(ToParent::Ready) => channels.worker.send_modify(|worker| worker.ready = true),
            Some(ToParent::ServerReached) => channels.worker.send_modify(|worker| worker.server_reached = true),
            Some(ToParent::Heartbeat) => {}
            None => bail!("it sent the unknown message {:#04x}", byte[0]),
        }
    }
}

/// Kills the process if it still runs, and returns its exit status.
async fn end(child: &mut Child) -> anyhow::Result<String> {
    // Killing a process of another user takes CAP_KILL. Without it, the worker ends with this process.
    if child.try_wait()?.is_none()
        && let Err(error) = child.start_kill()
    {
        tracing::debug!("cannot kill the worker: {error}");
    }
    let status = timeout(KILL_TIMEOUT, child.wait())
        .await
        .context("the worker does not end: ending the agent, which ends it")??;
    Ok(status.to_string())
}

//! Starts the worker, starts it again when it ends, and speaks with it.

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

/// A worker that has not been heard for this long hangs: it sends a heartbeat each second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The worker may take this long to finish what it has begun; then it is ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a killed process may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause before a worker is started again.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(10);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A worker that ran for this long did well: the next one is started at once.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);

/// Whether a worker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WorkerState {
    /// It accepts connections.
    pub(super) ready: bool,
    /// A server was reached since this agent started, by this worker or an earlier one.
    pub(super) server_reached: bool,
}

/// The one that keeps a worker running.
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
    /// Takes copies of the sockets.
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub(super) fn new(
        listeners: &[TcpListener],
        token_key: Secret<[u8; TOKEN_KEY_LEN]>,
        attestor: Attestor,
    ) -> anyhow::Result<Self> {
        let listeners = listeners.iter().map(TcpListener::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { listeners, token_key, attestor, running: Mutex::new(None) })
    }

    /// Runs as long as the agent.
    ///
    /// # Errors
    /// A worker hangs and cannot be ended: then the agent ends, and the kernel ends the worker. One that cannot be started
    /// is tried again; meanwhile pods get the fixed answer.
    pub(super) async fn run(&self, channels: &Channels) -> anyhow::Result<()> {
        let mut backoff = backoff();
        loop {
            let started = Instant::now();
            let ended = match self.start(channels).await {
                Ok(reader) => self.converse(reader, channels).await,
                // It may be dead already.
                Err(error) => Err(error.context("starting it")),
            };
            channels.worker.send_modify(|worker| worker.ready = false);
            let status = self.reap().await?;
            match ended {
                Ok(()) => tracing::error!("the worker ended: {status}"),
                Err(error) => tracing::error!("the worker was ended: {error:#}"),
            }
            if started.elapsed() > BACKOFF_RESET_AFTER {
                backoff = self::backoff();
            }
            sleep(backoff.next().unwrap_or(RESTART_PAUSE_MAX)).await;
        }
    }

    /// Asks the worker to stop, waits for it, and ends it when it takes too long.
    ///
    /// # Errors
    /// It cannot be ended.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        if self.running.lock().await.is_none() {
            return Ok(());
        }
        if let Err(error) = self.write(&ToWorker::Stop).await {
            tracing::debug!("the worker cannot be told to stop: {error:#}");
        }
        let Some(mut worker) = self.running.lock().await.take() else { return Ok(()) };
        match timeout(STOP_TIMEOUT, worker.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => end(&mut worker.child).await.map(drop),
        }
    }

    async fn start(&self, channels: &Channels) -> anyhow::Result<OwnedReadHalf> {
        let (ours, theirs) = net::UnixStream::pair()?;
        let thread = self.attestor.start().context("starting its witness")?;
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

    /// Speaks with the worker until it ends, or must be ended.
    async fn converse(&self, reader: OwnedReadHalf, channels: &Channels) -> anyhow::Result<()> {
        tokio::select! {
            // First: a worker that has ended is found out by reading, whatever became of a message to it.
            biased;
            heard = listen(reader, channels) => heard,
            told = self.tell(channels) => told,
        }
    }

    /// Passes on the newest of what the board holds, whenever it changes.
    async fn tell(&self, channels: &Channels) -> anyhow::Result<()> {
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
        let Some(Running { control, .. }) = running.as_mut() else { bail!("no worker to tell") };
        match timeout(SILENCE_MAX, control.write_all(&line)).await {
            Ok(written) => written.context("it has gone"),
            Err(_) => bail!("it takes in nothing"),
        }
    }

    /// Sees to it that the worker is gone, and says how it went.
    async fn reap(&self) -> anyhow::Result<String> {
        let Some(mut worker) = self.running.lock().await.take() else { return Ok("it never ran".to_owned()) };
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

/// Reads the worker's bytes; returns when it has gone.
async fn listen(mut reader: OwnedReadHalf, channels: &Channels) -> anyhow::Result<()> {
    let mut byte = [0];
    loop {
        let Ok(read) = timeout(SILENCE_MAX, reader.read(&mut byte)).await else {
            bail!("it has not been heard for {} s", SILENCE_MAX.as_secs());
        };
        if matches!(read, Ok(0) | Err(_)) {
            return Ok(());
        }
        match ToParent::from_byte(byte[0]) {
            Some(ToParent::Ready) => channels.worker.send_modify(|worker| worker.ready = true),
            Some(ToParent::ServerReached) => channels.worker.send_modify(|worker| worker.server_reached = true),
            Some(ToParent::Heartbeat) => {}
            None => bail!("it says {:#04x}, which means nothing", byte[0]),
        }
    }
}

/// Kills the process if it still runs.
async fn end(child: &mut Child) -> anyhow::Result<String> {
    // Without CAP_KILL a process of another user cannot be killed: then the end of this one ends it.
    if child.try_wait()?.is_none()
        && let Err(error) = child.start_kill()
    {
        tracing::debug!("cannot kill the worker: {error}");
    }
    let status =
        timeout(KILL_TIMEOUT, child.wait()).await.context("the worker does not end; ending the agent ends it")??;
    Ok(status.to_string())
}

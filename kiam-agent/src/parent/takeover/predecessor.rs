//! The predecessor's side of a takeover: the active agent listens for successors.

use super::{ANSWER_TIMEOUT, AgentInfo, Message, TAKEOVER_TIME_MAX, TAKEOVER_TIME_PER_INTERFACE, Wire, socket};
use crate::{datapath::node::interface_ages::InterfaceAges, files};
use anyhow::{Context as _, bail};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Agents that are ready to take over. Dropping this closes all connections, including those of standby agents.
pub(in crate::parent) struct Successors {
    ready: mpsc::Receiver<Successor>,
    _listening: JoinSet<()>,
}

/// An agent that is ready to take over.
pub(in crate::parent) struct Successor {
    wire: Wire,
    about: AgentInfo,
}

impl Successors {
    /// Listens, for root only, in place of an earlier agent. Fails if the path is too long for a socket (107 bytes,
    /// unix(7)).
    pub(in crate::parent) fn listen(run_dir: &Path, interface_ages: InterfaceAges) -> anyhow::Result<Self> {
        let listener = bind(run_dir)?;
        let (sender, ready) = mpsc::channel(1);
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, interface_ages, sender));
        Ok(Self { ready, _listening: listening })
    }

    /// Waits for the next one.
    pub(in crate::parent) async fn next(&mut self) -> anyhow::Result<Successor> {
        self.ready.recv().await.context("the task that listens for other agents has ended")
    }
}

/// Replaces the earlier agent's socket atomically.
fn bind(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = socket(run_dir);
    let draft = path.with_extension("new");
    files::remove_if_present(&draft)?;
    let listener = UnixListener::bind(&draft).with_context(|| format!("--run-dir: binding {}", draft.display()))?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    fs::rename(&draft, &path).with_context(|| format!("--run-dir: creating {}", path.display()))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, interface_ages: InterfaceAges, sender: mpsc::Sender<Successor>) {
    let mut conversations = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (interface_ages, sender) = (interface_ages.clone(), sender.clone());
                conversations.spawn(async move {
                    if let Err(error) = converse(stream, &interface_ages, &sender).await {
                        tracing::info!("an agent connected, but did not take over: {error:#}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection of another agent: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while conversations.try_join_next().is_some() {}
    }
}

async fn converse(
    stream: UnixStream,
    interface_ages: &InterfaceAges,
    sender: &mpsc::Sender<Successor>,
) -> anyhow::Result<()> {
    let mut wire = Wire::new(stream);
    let about = match timeout(ANSWER_TIMEOUT, wire.receive()).await {
        Err(_) => bail!("it sends no message"),
        Ok(Ok(Message::TakeOver(about))) => about,
        Ok(Ok(Message::Watch)) => {
            wire.ended().await;
            return Ok(());
        }
        Ok(Ok(other)) => bail!("it begins with {other:?} instead of a request"),
        Ok(Err(error)) => {
            // Any message will do: it contains the version.
            wire.send(Message::Given).await?;
            return Err(error);
        }
    };
    tracing::info!(successor = %about, "another agent is going to take over");
    wire.send(Message::Welcome { about: AgentInfo::this(), interface_ages: interface_ages.known() }).await?;
    match wire.receive().await? {
        // Sending fails if this agent is ending.
        Message::Take => drop(sender.send(Successor { wire, about }).await),
        other => bail!("it sent {other:?} instead of taking over"),
    }
    Ok(())
}

impl Successor {
    /// Hands over to it. The caller must not reconcile until this returns. `interfaces` is their number.
    ///
    /// # Errors
    /// It has disconnected or takes too long: the caller must claim the datapath again.
    pub(in crate::parent) async fn hand_over(mut self, interfaces: usize) -> anyhow::Result<()> {
        let time_max = TAKEOVER_TIME_MAX + TAKEOVER_TIME_PER_INTERFACE * u32::try_from(interfaces)?;
        tracing::info!(successor = %self.about, "handing over");
        self.wire.send(Message::Given).await?;
        match timeout(time_max, self.wire.receive()).await {
            Ok(Ok(Message::Done)) => Ok(()),
            Ok(Ok(other)) => bail!("it sent {other:?} instead of a confirmation"),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("it has not taken over after {time_max:?}"),
        }
    }
}

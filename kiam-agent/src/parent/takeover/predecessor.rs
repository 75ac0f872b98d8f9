//! The side of the agent that serves: it listens for one that comes after it.

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

/// Those that come. Dropping it ends all conversations, those of the agents that stand by among them.
pub(in crate::parent) struct Successors {
    ready: mpsc::Receiver<Successor>,
    _listening: JoinSet<()>,
}

/// One that is ready to take the datapath.
pub(in crate::parent) struct Successor {
    wire: Wire,
    about: AgentInfo,
}

impl Successors {
    /// Listens, for root alone, in the place of an earlier owner.
    ///
    /// # Errors
    /// The path is too long for a socket (107 bytes, unix(7)), or the folder cannot be written to.
    pub(in crate::parent) fn listen(run_dir: &Path, interface_ages: InterfaceAges) -> anyhow::Result<Self> {
        let listener = bind(run_dir)?;
        let (sender, ready) = mpsc::channel(1);
        let mut listening = JoinSet::new();
        listening.spawn(accept(listener, interface_ages, sender));
        Ok(Self { ready, _listening: listening })
    }

    /// The next one.
    pub(in crate::parent) async fn next(&mut self) -> anyhow::Result<Successor> {
        self.ready.recv().await.context("the task that listens for other agents has ended")
    }
}

/// In one step from the earlier owner's socket to this one's.
fn bind(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = socket(run_dir);
    let draft = path.with_extension("new");
    files::remove_if_present(&draft)?;
    let listener = UnixListener::bind(&draft).with_context(|| format!("--run-dir: binding {}", draft.display()))?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    fs::rename(&draft, &path).with_context(|| format!("--run-dir: making {}", path.display()))?;
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
                        tracing::info!("another agent did not take over: {error:#}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot hear another agent: {error}");
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
        Err(_) => bail!("it says nothing"),
        Ok(Ok(Message::TakeOver(about))) => about,
        Ok(Ok(Message::Watch)) => {
            wire.ended().await;
            return Ok(());
        }
        Ok(Ok(other)) => bail!("it begins with {other:?}"),
        Ok(Err(error)) => {
            // It finds out by the version of whatever is said.
            wire.send(Message::Given).await?;
            return Err(error);
        }
    };
    tracing::info!(successor = %about, "another agent is about to take over");
    wire.send(Message::Welcome { about: AgentInfo::this(), interface_ages: interface_ages.known() }).await?;
    match wire.receive().await? {
        // It fails when this agent is ending.
        Message::Take => drop(sender.send(Successor { wire, about }).await),
        other => bail!("it goes on with {other:?}"),
    }
    Ok(())
}

impl Successor {
    /// Hands over: from this call on, the caller must repair nothing until it returns. `interfaces`: how many there are.
    ///
    /// # Errors
    /// It has gone before it was done, or takes too long: then everything must be made this agent's again.
    pub(in crate::parent) async fn hand_over(mut self, interfaces: usize) -> anyhow::Result<()> {
        let time_max = TAKEOVER_TIME_MAX + TAKEOVER_TIME_PER_INTERFACE * u32::try_from(interfaces)?;
        tracing::info!(successor = %self.about, "handing over");
        self.wire.send(Message::Given).await?;
        match timeout(time_max, self.wire.receive()).await {
            Ok(Ok(Message::Done)) => Ok(()),
            Ok(Ok(other)) => bail!("it says {other:?} instead of being done"),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("it is not done after {time_max:?}"),
        }
    }
}

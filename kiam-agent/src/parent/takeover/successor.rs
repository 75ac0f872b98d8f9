//! The side of the agent that comes later: it asks, takes, and says that it is done.

use super::{ANSWER_TIMEOUT, AgentInfo, Message, OtherProtocol, Wire, socket};
use anyhow::{Context as _, bail};
use std::{io::ErrorKind, path::Path};
use tokio::{
    net::UnixStream,
    time::{error::Elapsed, timeout},
};

/// An owner that lives and is ready to be followed.
pub(in crate::parent) struct Predecessor {
    wire: Wire,
    /// When the interfaces appeared that it saw appear: index, milliseconds of `CLOCK_MONOTONIC`.
    pub(in crate::parent) interface_ages: Vec<(u32, u64)>,
}

/// Asks the owner; `None`: it has gone, or does not answer, and is given up for dead.
///
/// # Errors
/// It cannot be understood; with what to do.
pub(in crate::parent) async fn request(run_dir: &Path) -> anyhow::Result<Option<Predecessor>> {
    let conversation = timeout(ANSWER_TIMEOUT, async {
        let mut wire = connect(run_dir).await?;
        wire.send(Message::TakeOver(AgentInfo::this())).await?;
        let answer = wire.receive().await?;
        anyhow::Ok((wire, answer))
    });
    match conversation.await {
        Ok(Ok((wire, Message::Welcome { about, interface_ages }))) => {
            tracing::info!(predecessor = %about, "another agent serves this node: taking over from it when pods can be served");
            Ok(Some(Predecessor { wire, interface_ages }))
        }
        Ok(Ok((_, other))) => bail!("the agent that serves this node answers {other:?} to the question to take over"),
        Ok(Err(error)) if error.is::<OtherProtocol>() => Err(error.context(
            "the agent that serves this node cannot hand over: stop it first; until this one has started, pods get \
             nothing",
        )),
        Ok(Err(error)) => {
            tracing::info!("no agent answers in {}: {error:#}", run_dir.display());
            Ok(None)
        }
        Err(Elapsed { .. }) => {
            tracing::warn!(
                "the agent that serves this node does not answer for {ANSWER_TIMEOUT:?}: taking over without it"
            );
            Ok(None)
        }
    }
}

impl Predecessor {
    /// Waits until it has gone, which it should not yet.
    pub(in crate::parent) async fn ended(&mut self) {
        self.wire.ended().await;
    }

    /// Asks it to stop repairing. However it answers, the datapath is this agent's to take then: one that does not
    /// answer finds out by the generation.
    pub(in crate::parent) async fn take_datapath(&mut self) {
        let given = timeout(ANSWER_TIMEOUT, async {
            self.wire.send(Message::Take).await?;
            match self.wire.receive().await? {
                Message::Given => Ok(()),
                other => bail!("it answers {other:?}"),
            }
        });
        match given.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the other agent did not hand over: {error:#}"),
            Err(Elapsed { .. }) => tracing::warn!("the other agent does not answer for {ANSWER_TIMEOUT:?}"),
        }
    }

    /// Tells it that everything is in place.
    pub(in crate::parent) async fn done(mut self) {
        if let Err(error) = self.wire.send(Message::Done).await {
            tracing::debug!("the other agent was not told that all is done: {error:#}");
        }
    }
}

/// Returns when no owner answers any more, at once if none does.
pub(in crate::parent) async fn until_agent_ends(run_dir: &Path) {
    let watched = async {
        let mut wire = connect(run_dir).await?;
        wire.send(Message::Watch).await?;
        wire.ended().await;
        anyhow::Ok(())
    };
    if let Err(error) = watched.await {
        tracing::debug!("no owner to watch: {error:#}");
    }
}

/// Whether an owner listens.
pub(in crate::parent) async fn is_served(run_dir: &Path) -> bool {
    connect(run_dir).await.is_ok()
}

async fn connect(run_dir: &Path) -> anyhow::Result<Wire> {
    let path = socket(run_dir);
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Wire::new(stream)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!("nobody listens at {}", path.display()),
        Err(error) => Err(error).with_context(|| format!("connecting to {}", path.display())),
    }
}

//! The successor's side of a takeover.

use super::{ANSWER_TIMEOUT, AgentInfo, Message, OtherProtocol, Wire, socket};
use anyhow::{Context as _, bail};
use std::{io::ErrorKind, path::Path};
use tokio::{
    net::UnixStream,
    time::{error::Elapsed, timeout},
};

/// The active agent, after it has accepted the request to take over.
pub(in crate::parent) struct Predecessor {
    wire: Wire,
    /// Index of each interface that appeared while it ran, and when: milliseconds of `CLOCK_MONOTONIC`.
    pub(in crate::parent) interface_ages: Vec<(u32, u64)>,
}

/// Requests a takeover from the active agent. Returns `None` if no agent runs, or it does not answer and is given up
/// for dead.
pub(in crate::parent) async fn request(run_dir: &Path) -> anyhow::Result<Option<Predecessor>> {
    let conversation = timeout(ANSWER_TIMEOUT, async {
        let mut wire = connect(run_dir).await?;
        wire.send(Message::TakeOver(AgentInfo::this())).await?;
        let answer = wire.receive().await?;
        anyhow::Ok((wire, answer))
    });
    match conversation.await {
        Ok(Ok((wire, Message::Welcome { about, interface_ages }))) => {
            tracing::info!(predecessor = %about, "another agent serves this node: taking over when pods can be served");
            Ok(Some(Predecessor { wire, interface_ages }))
        }
        Ok(Ok((_, other))) => bail!("the agent that serves this node answers {other:?} to the request to take over"),
        Ok(Err(error)) if error.is::<OtherProtocol>() => Err(error.context(
            "the agent that serves this node cannot hand over: stop it first; pods get no answer until this one has \
             started",
        )),
        Ok(Err(error)) => {
            tracing::info!("no active agent in {}: {error:#}", run_dir.display());
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
    /// Returns if it ends before the takeover.
    pub(in crate::parent) async fn ended(&mut self) {
        self.wire.ended().await;
    }

    /// Asks it to stop reconciling. Whatever the answer, this agent can claim the datapath then: a predecessor that
    /// does not answer will notice by the generation.
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
            Ok(Err(error)) => tracing::warn!("the predecessor did not hand over: {error:#}; taking over without it"),
            Err(Elapsed { .. }) => {
                tracing::warn!("the predecessor does not answer for {ANSWER_TIMEOUT:?}: taking over without it");
            }
        }
    }

    /// Confirms the takeover.
    pub(in crate::parent) async fn done(mut self) {
        if let Err(error) = self.wire.send(Message::Done).await {
            tracing::debug!("cannot confirm the takeover: {error:#}");
        }
    }
}

/// Waits until the active agent ends; returns at once if no agent is active.
pub(in crate::parent) async fn until_agent_ends(run_dir: &Path) {
    let watched = async {
        let mut wire = connect(run_dir).await?;
        wire.send(Message::Watch).await?;
        wire.ended().await;
        anyhow::Ok(())
    };
    if let Err(error) = watched.await {
        tracing::debug!("no active agent to wait for: {error:#}");
    }
}

/// Returns whether an active agent listens.
pub(in crate::parent) async fn is_served(run_dir: &Path) -> bool {
    connect(run_dir).await.is_ok()
}

async fn connect(run_dir: &Path) -> anyhow::Result<Wire> {
    let path = socket(run_dir);
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Wire::new(stream)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!("no process listens at {}", path.display()),
        Err(error) => Err(error).with_context(|| format!("connecting to {}", path.display())),
    }
}

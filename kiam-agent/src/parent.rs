//! The privileged process. It owns the maps, links, rules and listening sockets and reconciles them, and parses no byte
//! that comes from a pod. Its death ends the worker and empties the listener slots; all else stays pinned, and the node
//! stays closed.

mod active;
mod attestor;
mod channels;
mod drain;
mod exemptions;
mod fallback;
mod sweep;
mod takeover;
mod token_key;
mod worker;

pub(crate) use takeover::remove_leftovers as remove_upgrade_files;
pub(crate) use token_key::remove as remove_token_key;

use crate::{
    config::{Config, DatapathConfig},
    datapath::{
        self,
        node::interface_ages::InterfaceAges,
        ownership::{
            node_lock::{NodeLock, OtherAgents},
            owner::Installation,
        },
    },
    status_socket,
};
use active::{ActiveAgent, Ended};
use anyhow::{Context as _, bail};
use channels::{Channels, not_owner};
use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};
use takeover::{Predecessor, TakeoverLock};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

/// Pause before a standby agent connects to the active agent again.
const STAND_BY_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Requests to stop: SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns once a signal has arrived since the last call returned.
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs the agent until it receives SIGTERM or SIGINT. An error leaves the node closed.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    // One thread: the kernel ends the worker when the thread that started it ends (PR_SET_PDEATHSIG).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_until_stopped(config))
}

async fn run_until_stopped(config: &Config) -> anyhow::Result<()> {
    let stop = Stop::new()?;
    make_run_dir(&config.datapath.run_dir)?;
    let channels = Channels::new(exemptions::recall(config));
    channels.publish_conditions(vec![not_owner("this agent is starting")]);
    let (interface_ages, ages_ended) = InterfaceAges::watch()?;
    let socket = &config.datapath.probe_socket;
    tokio::select! {
        ended = serve_and_stand_by(config, &channels, &interface_ages, stop) => ended,
        ended = ages_ended => Err(ended?),
        never = crate::exemptions::follow(&config.exempt, &channels.exempt) => match never {},
        ended = status_socket::serve(socket, || channels.report(), channels.claims.subscribe()) => ended,
    }
}

/// Serves pods, is on standby after another agent has taken over, and serves again once that one has ended.
async fn serve_and_stand_by(
    config: &Config,
    channels: &Channels,
    interface_ages: &InterfaceAges,
    mut stop: Stop,
) -> anyhow::Result<()> {
    let run_dir = &config.datapath.run_dir;
    datapath::close_unguarded(&config.datapath.bpffs).await?;
    let lock = NodeLock::open(&config.datapath.bpffs)?;
    let mut takeover_lock = TakeoverLock::acquire(run_dir).await?;
    let mut predecessor = find_predecessor(&lock, &config.datapath).await?;
    loop {
        let mut active_agent = ActiveAgent { config, channels, interface_ages, lock: &lock, stop: &mut stop };
        match active_agent.serve(takeover_lock, predecessor.take()).await? {
            Ended::Stopped => return Ok(()),
            Ended::HandedOver => {}
        }
        tokio::select! {
            acquired = wait_until_unserved(run_dir) => takeover_lock = acquired?,
            () = stop.requested() => return Ok(()),
        }
        tracing::warn!("the agent that served this node has ended: serving again");
        lock.lock_shared_or_exclusive().await?;
    }
}

/// Returns the active agent of this node, if there is one and it answers.
async fn find_predecessor(lock: &NodeLock, config: &DatapathConfig) -> anyhow::Result<Option<Predecessor>> {
    if lock.lock_shared_or_exclusive().await? == OtherAgents::Absent {
        return Ok(None);
    }
    let owner =
        Installation::recorded(lock.root())?.context("an agent runs on this node, but has not claimed the datapath")?;
    if !owner.is(&Installation::of(&config.run_dir).context("--run-dir")?) {
        bail!(
            "an agent of another installation serves this node ({}; its --run-dir is {}): stop it first, or start this \
             one with that folder as its --run-dir",
            lock.holders(),
            owner.run_dir()
        );
    }
    takeover::request(&config.run_dir).await
}

/// Waits until no agent serves the node or is about to take over.
async fn wait_until_unserved(run_dir: &Path) -> anyhow::Result<TakeoverLock> {
    loop {
        takeover::until_agent_ends(run_dir).await;
        let takeover_lock = TakeoverLock::wait(run_dir).await?;
        if !takeover::is_served(run_dir).await {
            return Ok(takeover_lock);
        }
        drop(takeover_lock);
        sleep(STAND_BY_RETRY_PAUSE).await;
    }
}

/// Creates `--run-dir`. Other users can pass through it but not list it: the status socket and the token key have modes
/// of their own.
fn make_run_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("--run-dir: cannot create {}", path.display()))
}

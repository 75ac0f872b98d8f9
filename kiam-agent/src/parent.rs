//! The privileged process: it holds maps, links, rules and the listening sockets, and keeps them right. It parses no
//! byte that comes from a pod. Its death ends the worker and empties the listeners' slots; all else stays pinned, closed.

mod attest;
mod fallback;
mod probe;
mod sweep;
mod token_key;
mod worker;

pub(crate) use probe::ask;
pub(crate) use token_key::remove as remove_token_key;

use crate::{
    config::Config,
    handoff::{Condition, Interface, Status},
    redirect::{
        Redirect,
        births::Births,
        kubepods::Kubepods,
        netlink::{self, News},
    },
};
use anyhow::Context as _;
use attest::Witnesses;
use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use worker::{Supervisor, WorkerState};

/// How often the datapath is looked at when nothing is heard.
const SELF_CHECK: Duration = Duration::from_secs(10);
/// How often the packet counters are read: metrics are scraped every 15 seconds at most.
const COUNTERS: Duration = Duration::from_secs(5);

/// What the tasks of the parent tell each other: the newest value is all that counts.
pub(crate) struct Board {
    /// The interfaces that carry connections.
    pub(crate) interfaces: watch::Sender<Vec<Interface>>,
    /// Below which cgroup the kubelet keeps those of pods; `None` where there is none that programs know.
    pub(crate) kubepods: watch::Sender<Option<Kubepods>>,
    /// How the datapath is.
    pub(crate) status: watch::Sender<Status>,
    /// Whether a worker answers.
    pub(crate) worker: watch::Sender<WorkerState>,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What keeps the datapath from coming up, or a worker that cannot be stopped. The node stays closed.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    // One thread: the kernel ends the worker when the thread that started it ends (PR_SET_PDEATHSIG).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_until_stopped(config))
}

async fn run_until_stopped(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    make_run_dir(&config.redirect.run_dir)?;
    let token_key = token_key::open(&config.redirect.run_dir)?;
    let board = Board {
        interfaces: watch::Sender::new(Vec::new()),
        kubepods: watch::Sender::new(None),
        status: watch::Sender::new(Status::default()),
        worker: watch::Sender::new(WorkerState::default()),
    };
    // Subscribed before the first look, so that nothing falls between the two.
    let mut news = News::subscribe()?;
    let (births, births_ended) = Births::watch()?;
    let mut redirect = Redirect::start(&config.redirect, config.take_over, netlink::connect()?, births).await?;
    let witnesses = Witnesses {
        pins: redirect.pins().clone(),
        kubepods: board.kubepods.subscribe(),
        interfaces: board.interfaces.subscribe(),
    };
    let supervisor = Supervisor::new(redirect.listeners(), token_key, witnesses)?;
    let sweep_ended = sweep::start(redirect.pins())?;
    let fallback = fallback::Fallback::new(redirect.listeners())?;
    let probe = probe::bind(&config.redirect.probe_socket)?;
    redirect.keep_up(|interfaces| announce(&board, interfaces)).await;
    redirect.inspect().await;
    publish(&board, &redirect);

    tokio::select! {
        ended = keep_up(&board, &mut redirect, &mut news) => ended,
        ended = supervisor.run(&board) => ended,
        ended = births_ended => Err(ended?),
        ended = sweep_ended => Err(ended?),
        () = fallback.run(&board) => Ok(()),
        () = probe::serve(&probe, &board) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }?;
    tracing::info!("stopping; the node stays closed until an agent runs again or `kiam-agent cleanup` opens it");
    supervisor.stop().await
}

/// Follows the node, and looks by itself when nothing is heard.
async fn keep_up(board: &Board, redirect: &mut Redirect, news: &mut News) -> anyhow::Result<()> {
    let mut self_check = interval(SELF_CHECK);
    let mut counters = interval(COUNTERS);
    self_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = news.wait() => news?,
            _ = self_check.tick() => redirect.inspect().await,
            _ = counters.tick() => {
                publish(board, redirect);
                continue;
            }
        }
        redirect.keep_up(|interfaces| announce(board, interfaces)).await;
        publish(board, redirect);
    }
}

fn announce(board: &Board, interfaces: Vec<Interface>) {
    board.interfaces.send_if_modified(|known| {
        let changed = *known != interfaces;
        *known = interfaces;
        changed
    });
}

fn publish(board: &Board, redirect: &Redirect) {
    let known: Vec<Condition> = board.status.borrow().conditions.clone();
    for condition in redirect.conditions() {
        // Said when it changes, not every ten seconds.
        if !known.contains(condition) {
            match &condition.problem {
                Some(problem) => tracing::error!(condition = condition.name, "{problem}"),
                None => tracing::info!(condition = condition.name, "holds"),
            }
        }
    }
    board.kubepods.send_if_modified(|known| {
        let changed = known.as_ref() != redirect.kubepods();
        if changed {
            *known = redirect.kubepods().cloned();
        }
        changed
    });
    board.status.send_modify(|status| {
        status.conditions = redirect.conditions().cloned().collect();
        status.packets = redirect.packets();
    });
}

/// For root alone, but passable: the probe socket and the key have modes of their own.
fn make_run_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("--run-dir: cannot make {}", path.display()))
}

//! A term of office: from the moment that this agent wants the node's datapath until another one has it, or it is told
//! to stop.

use super::{
    Board, STAND_BY, Stop, announce,
    attestor::Witnesses,
    drain,
    exemptions::{self, Exemptions},
    fallback::Fallback,
    not_owner, publish, publish_conditions, publish_kubepods, sweep,
    takeover::{Predecessor, Successor, Successors, Turn},
    token_key,
    worker::Supervisor,
};
use crate::{
    config::Config,
    datapath::{
        Datapath,
        node::{
            interface_ages::Births,
            netlink::{self, Heard, News},
        },
        ownership::node_lock::NodeLock,
    },
    report::Condition,
};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often the datapath is looked at when nothing is heard.
const SELF_CHECK: Duration = Duration::from_secs(10);
/// How soon it is looked at again when something could not be set up: an interface that is coming or going, a program that
/// the kernel is still taking off.
const RETRY: Duration = Duration::from_secs(1);
/// How often the packet counters are read: metrics are scraped every 15 seconds at most.
const COUNTERS: Duration = Duration::from_secs(5);

/// How a term ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// This agent was told to stop.
    Stopped,
    /// Another agent has the datapath.
    Succeeded,
}

/// What an agent's terms have in common.
pub(super) struct Term<'a> {
    pub(super) config: &'a Config,
    pub(super) board: &'a Board,
    pub(super) births: &'a Births,
    pub(super) lock: &'a NodeLock,
    pub(super) stop: &'a mut Stop,
}

/// What there is to do.
enum Event {
    Look,
    Inspect,
    Exempt,
    Count,
    HandOver(Successor),
    Stop,
}

impl Term<'_> {
    /// One term, with a worker of its own. With a predecessor nothing of it is noticed before it is over.
    ///
    /// # Errors
    /// What keeps the datapath from coming up, or a worker that cannot be stopped. The node stays closed.
    pub(super) async fn serve(&mut self, turn: Turn, predecessor: Option<Predecessor>) -> anyhow::Result<Ended> {
        let (config, board) = (&self.config.datapath, self.board);
        publish_conditions(board, vec![not_owner("this agent is starting")]);
        board.worker.send_modify(|worker| worker.ready = false);
        // Subscribed before the first look, so that nothing falls between the two.
        let mut news = News::subscribe()?;
        let mut redirect =
            Datapath::open(config, self.lock.root(), self.config.take_over, netlink::connect()?, self.births.clone())
                .await?;
        let witnesses = Witnesses {
            pins: redirect.pins().clone(),
            kubepods: board.kubepods.subscribe(),
            interfaces: board.interfaces.subscribe(),
        };
        let supervisor = Supervisor::new(redirect.listeners(), token_key::open(&config.run_dir)?, witnesses)?;
        let mut exemptions = Exemptions::open(self.config, board, redirect.pins())?;
        let sweep_ended = sweep::start(redirect.pins())?;
        let fallback = Fallback::new(redirect.listeners())?;
        let ended = tokio::select! {
            ended = self.lead(&mut redirect, &mut exemptions, &mut news, turn, predecessor) => ended,
            ended = supervisor.run(board) => ended.map(|()| Ended::Stopped),
            ended = sweep_ended => Err(ended?),
            () = fallback.run(board) => Ok(Ended::Stopped),
        }?;
        if ended == Ended::Stopped {
            tracing::info!(
                "stopping; the node stays closed until an agent runs again or `kiam-agent cleanup` opens it"
            );
        }
        // Who comes while the worker finishes is told to ask again.
        board.worker.send_modify(|worker| worker.ready = false);
        tokio::select! {
            stopped = supervisor.stop() => stopped.map(|()| ended),
            () = fallback.run(board) => Ok(ended),
        }
    }

    async fn lead(
        &mut self,
        redirect: &mut Datapath,
        exemptions: &mut Exemptions<'_>,
        news: &mut News,
        turn: Turn,
        predecessor: Option<Predecessor>,
    ) -> anyhow::Result<Ended> {
        let predecessor = match predecessor {
            None => None,
            Some(mut predecessor) => {
                self.births.adopt(std::mem::take(&mut predecessor.births));
                tokio::select! {
                    () = self.stop.told() => return Ok(Ended::Stopped),
                    () = until_fit(self.board) => {
                        predecessor.take().await;
                        Some(predecessor)
                    }
                    () = predecessor.ended() => {
                        tracing::warn!("the agent that served this node has ended: taking over at once");
                        None
                    }
                }
            }
        };
        let mut successors = self.take(redirect, exemptions).await?;
        if let Some(predecessor) = predecessor {
            predecessor.done().await;
        }
        drop(turn);
        self.keep_up(redirect, exemptions, news, &mut successors).await
    }

    /// Makes the datapath this agent's, and listens for the one that comes next.
    async fn take(&mut self, redirect: &mut Datapath, exemptions: &mut Exemptions<'_>) -> anyhow::Result<Successors> {
        // The next connection may be one for this agent's worker.
        redirect.look(|interfaces| announce(self.board, interfaces)).await?;
        publish_kubepods(self.board, redirect);
        redirect.arm()?;
        self.lock.settle()?;
        let successors = Successors::listen(&self.config.datapath.run_dir, self.births.clone())?;
        // Before the hooks run: a pod that is exempt is refused at no moment.
        exemptions.keep_up();
        self.board.terms.send_modify(|terms| *terms += 1);
        redirect.keep_up(|interfaces| announce(self.board, interfaces)).await;
        redirect.remove_other_layouts()?;
        redirect.inspect().await;
        redirect.probe().await;
        publish(self.board, redirect, exemptions.condition());
        Ok(successors)
    }

    /// Follows the node, and looks by itself when nothing is heard.
    async fn keep_up(
        &mut self,
        redirect: &mut Datapath,
        exemptions: &mut Exemptions<'_>,
        news: &mut News,
        successors: &mut Successors,
    ) -> anyhow::Result<Ended> {
        let mut self_check = interval(SELF_CHECK);
        let mut counters = interval(COUNTERS);
        self_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Only the waiting is given up for something else, never a repair.
            let event = tokio::select! {
                () = self.stop.told() => Event::Stop,
                successor = successors.next() => Event::HandOver(successor?),
                heard = news.wait() => match heard? {
                    Heard::Filters => Event::Inspect,
                    Heard::Node => Event::Look,
                },
                () = sleep(RETRY), if !redirect.is_whole() => Event::Look,
                () = exemptions.due() => Event::Exempt,
                _ = self_check.tick() => Event::Inspect,
                _ = counters.tick() => Event::Count,
            };
            match event {
                Event::Stop => return Ok(Ended::Stopped),
                Event::Count => {}
                _ if !redirect.is_ours()? => {
                    tracing::warn!("another agent has taken this node's datapath: leaving it to that one");
                    return Ok(self.withdraw(redirect).await);
                }
                Event::HandOver(successor) => match successor.take_over(self.interfaces()).await {
                    Ok(()) => return Ok(self.withdraw(redirect).await),
                    Err(error) => {
                        tracing::warn!("the other agent did not take over: {error:#}; this one goes on");
                        *successors = self.take(redirect, exemptions).await?;
                    }
                },
                Event::Inspect => {
                    redirect.inspect().await;
                    redirect.keep_up(|interfaces| announce(self.board, interfaces)).await;
                    exemptions.keep_up();
                    redirect.probe().await;
                }
                Event::Exempt => exemptions.keep_up(),
                Event::Look => {
                    redirect.keep_up(|interfaces| announce(self.board, interfaces)).await;
                    exemptions.keep_up();
                }
            }
            publish(self.board, redirect, exemptions.condition());
        }
    }

    fn interfaces(&self) -> usize {
        self.board.interfaces.borrow().len()
    }

    /// Until nobody needs the listening sockets of this term any more; told to stop or not.
    async fn withdraw(&self, redirect: &Datapath) -> Ended {
        self.board.datapath.send_replace(None);
        publish_conditions(self.board, vec![Condition { name: STAND_BY.to_owned(), problem: None }]);
        drain::until_empty(redirect.listeners()).await;
        tracing::info!("handed over: standing by, to be told to stop or to serve again");
        Ended::Succeeded
    }
}

/// Pods would not notice a change: this agent knows who is exempt, its worker answers, and has what it needs to answer
/// well.
async fn until_fit(board: &Board) {
    let waiting = not_owner("another agent serves this node until this one has a worker and has reached a server");
    let mut exempt = board.exempt.subscribe();
    loop {
        let problem = exempt.borrow_and_update().problem();
        let Some(problem) = problem else { break };
        publish_conditions(board, vec![waiting.clone(), exemptions::condition(Some(problem))]);
        // It fails when this agent ends.
        drop(exempt.changed().await);
    }
    publish_conditions(board, vec![waiting]);
    let mut worker = board.worker.subscribe();
    drop(worker.wait_for(|worker| worker.ready && worker.server_reached).await);
}

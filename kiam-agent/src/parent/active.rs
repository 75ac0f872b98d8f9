//! A term of office: from the moment that this agent wants the node's datapath until another one has it, or it is told
//! to stop.

use super::{
    Stop,
    attestor::Attestor,
    channels::{Channels, not_owner, standing_by},
    drain,
    exemptions::{self, Exemptions},
    fallback::{self, Fallback},
    sweep,
    takeover::{Predecessor, Successor, Successors, TakeoverLock},
    token_key,
    worker::Supervisor,
};
use crate::{
    config::Config,
    datapath::{
        Datapath,
        node::{
            interface_ages::InterfaceAges,
            netlink::{self, Change, Changes},
        },
        ownership::node_lock::NodeLock,
    },
};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often the datapath is looked at when nothing is heard.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How soon it is looked at again when something could not be set up: an interface that is coming or going, a program that
/// the kernel is still taking off.
const RECONCILE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the packet counters are read: metrics are scraped every 15 seconds at most.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(5);

/// How a term ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// This agent was told to stop.
    Stopped,
    /// Another agent has the datapath.
    HandedOver,
}

/// What an agent's terms have in common.
pub(super) struct ActiveAgent<'a> {
    pub(super) config: &'a Config,
    pub(super) channels: &'a Channels,
    pub(super) interface_ages: &'a InterfaceAges,
    pub(super) lock: &'a NodeLock,
    pub(super) stop: &'a mut Stop,
}

/// What there is to do.
enum Event {
    Reconcile,
    SelfCheck,
    ReconcileExemptions,
    ReadCounters,
    HandOver(Successor),
    Stop,
}

impl ActiveAgent<'_> {
    /// One term, with a worker of its own. With a predecessor nothing of it is noticed before it is over.
    ///
    /// # Errors
    /// What keeps the datapath from coming up, or a worker that cannot be stopped. The node stays closed.
    pub(super) async fn serve(
        &mut self,
        takeover_lock: TakeoverLock,
        predecessor: Option<Predecessor>,
    ) -> anyhow::Result<Ended> {
        let (config, channels) = (&self.config.datapath, self.channels);
        channels.publish_conditions(vec![not_owner("this agent is starting")]);
        channels.worker.send_modify(|worker| worker.ready = false);
        // Subscribed before the first look, so that nothing falls between the two.
        let mut changes = Changes::subscribe()?;
        let mut datapath = Datapath::open(
            config,
            self.lock.root(),
            self.config.take_over,
            netlink::connect()?,
            self.interface_ages.clone(),
        )?;
        let attestor = Attestor {
            pins: datapath.pins().clone(),
            kubepods: channels.kubepods.subscribe(),
            interfaces: channels.interfaces.subscribe(),
        };
        let supervisor = Supervisor::new(datapath.listeners(), token_key::open(&config.run_dir)?, attestor)?;
        let mut exemptions = Exemptions::open(self.config, channels, datapath.pins())?;
        let sweep_ended = sweep::start(datapath.pins())?;
        let fallback = Fallback::new(datapath.listeners())?;
        let ended = tokio::select! {
            ended = self.take_over(&mut datapath, &mut exemptions, &mut changes, takeover_lock, predecessor) => ended,
            ended = supervisor.run(channels) => ended.map(|()| Ended::Stopped),
            ended = sweep_ended => Err(ended?),
            () = fallback.run(channels) => Ok(Ended::Stopped),
        }?;
        if ended == Ended::Stopped {
            tracing::info!(
                "stopping; the node stays closed until an agent runs again or `kiam-agent cleanup` opens it"
            );
        }
        let (served, others): (Vec<_>, Vec<_>) =
            datapath.listeners().iter().partition(|listener| fallback::serves(listener));
        // There the worker answers who has come, and nobody would who comes later.
        drain::shut(&others);
        // Who comes while the worker finishes is told to ask again.
        channels.worker.send_modify(|worker| worker.ready = false);
        let stopped = tokio::select! {
            stopped = supervisor.stop() => stopped,
            () = fallback.run(channels) => Ok(()),
        };
        if ended == Ended::Stopped {
            drain::shut(&served);
            tokio::select! {
                () = drain::until_done(&served) => {}
                () = fallback.run(channels) => {}
            }
        }
        fallback.answered().await;
        stopped.map(|()| ended)
    }

    async fn take_over(
        &mut self,
        datapath: &mut Datapath,
        exemptions: &mut Exemptions<'_>,
        changes: &mut Changes,
        takeover_lock: TakeoverLock,
        predecessor: Option<Predecessor>,
    ) -> anyhow::Result<Ended> {
        let predecessor = match predecessor {
            None => None,
            Some(mut predecessor) => {
                self.interface_ages.adopt(std::mem::take(&mut predecessor.interface_ages));
                tokio::select! {
                    () = self.stop.requested() => return Ok(Ended::Stopped),
                    () = until_able_to_serve(self.channels) => {
                        predecessor.take_datapath().await;
                        Some(predecessor)
                    }
                    () = predecessor.ended() => {
                        tracing::warn!("the agent that served this node has ended: taking over at once");
                        None
                    }
                }
            }
        };
        let mut successors = self.claim(datapath, exemptions).await?;
        if let Some(predecessor) = predecessor {
            predecessor.done().await;
        }
        drop(takeover_lock);
        self.run(datapath, exemptions, changes, &mut successors).await
    }

    /// Makes the datapath this agent's, and listens for the one that comes next.
    async fn claim(&mut self, datapath: &mut Datapath, exemptions: &mut Exemptions<'_>) -> anyhow::Result<Successors> {
        // The next connection may be one for this agent's worker.
        datapath.announce_interfaces(|interfaces| self.channels.publish_interfaces(interfaces)).await?;
        self.channels.publish_kubepods(datapath);
        datapath.claim()?;
        self.lock.downgrade()?;
        let successors = Successors::listen(&self.config.datapath.run_dir, self.interface_ages.clone())?;
        // Before the hooks run: a pod that is exempt is refused at no moment.
        exemptions.reconcile();
        self.channels.claims.send_modify(|claims| *claims += 1);
        datapath.reconcile(|interfaces| self.channels.publish_interfaces(interfaces)).await;
        datapath.remove_other_layouts()?;
        datapath.self_check().await;
        datapath.probe().await;
        self.channels.publish(datapath, exemptions.condition());
        Ok(successors)
    }

    /// Follows the node, and looks by itself when nothing is heard.
    async fn run(
        &mut self,
        datapath: &mut Datapath,
        exemptions: &mut Exemptions<'_>,
        changes: &mut Changes,
        successors: &mut Successors,
    ) -> anyhow::Result<Ended> {
        let mut self_check = interval(SELF_CHECK_INTERVAL);
        let mut counters = interval(COUNTERS_INTERVAL);
        self_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Only the waiting is given up for something else, never a repair.
            let event = tokio::select! {
                () = self.stop.requested() => Event::Stop,
                successor = successors.next() => Event::HandOver(successor?),
                change = changes.wait() => match change? {
                    Change::Filters => Event::SelfCheck,
                    Change::Node => Event::Reconcile,
                },
                () = sleep(RECONCILE_RETRY_PAUSE), if !datapath.is_reconciled() => Event::Reconcile,
                () = exemptions.due() => Event::ReconcileExemptions,
                _ = self_check.tick() => Event::SelfCheck,
                _ = counters.tick() => Event::ReadCounters,
            };
            match event {
                Event::Stop => return Ok(Ended::Stopped),
                Event::ReadCounters => {}
                _ if !datapath.is_ours()? => {
                    tracing::warn!("another agent has taken this node's datapath: leaving it to that one");
                    return Ok(self.withdraw(datapath).await);
                }
                Event::HandOver(successor) => match successor.hand_over(self.interfaces()).await {
                    Ok(()) => return Ok(self.withdraw(datapath).await),
                    Err(error) => {
                        tracing::warn!("the other agent did not take over: {error:#}; this one goes on");
                        *successors = self.claim(datapath, exemptions).await?;
                    }
                },
                Event::SelfCheck => {
                    datapath.self_check().await;
                    datapath.reconcile(|interfaces| self.channels.publish_interfaces(interfaces)).await;
                    exemptions.reconcile();
                    datapath.probe().await;
                }
                Event::ReconcileExemptions => exemptions.reconcile(),
                Event::Reconcile => {
                    datapath.reconcile(|interfaces| self.channels.publish_interfaces(interfaces)).await;
                    exemptions.reconcile();
                }
            }
            self.channels.publish(datapath, exemptions.condition());
        }
    }

    fn interfaces(&self) -> usize {
        self.channels.interfaces.borrow().len()
    }

    /// Until nobody needs the listening sockets of this term any more; told to stop or not.
    async fn withdraw(&self, datapath: &Datapath) -> Ended {
        self.channels.datapath.send_replace(None);
        self.channels.publish_conditions(vec![standing_by()]);
        drain::until_empty(datapath.listeners()).await;
        tracing::info!("handed over: standing by, to be told to stop or to serve again");
        Ended::HandedOver
    }
}

/// Pods would not notice a change: this agent knows who is exempt, its worker answers, and has what it needs to answer
/// well.
async fn until_able_to_serve(channels: &Channels) {
    let waiting = not_owner("another agent serves this node until this one has a worker and has reached a server");
    let mut exempt = channels.exempt.subscribe();
    loop {
        let problem = exempt.borrow_and_update().problem();
        let Some(problem) = problem else { break };
        channels.publish_conditions(vec![waiting.clone(), exemptions::condition(Some(problem))]);
        // It fails when this agent ends.
        drop(exempt.changed().await);
    }
    channels.publish_conditions(vec![waiting]);
    let mut worker = channels.worker.subscribe();
    drop(worker.wait_for(|worker| worker.ready && worker.server_reached).await);
}

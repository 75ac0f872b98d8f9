//! The active agent: from the moment that this agent takes over the node's datapath until it has handed it over or is
//! asked to stop.

use super::{
    Stop,
    attestor::Attestor,
    channels::{Channels, not_owner, standing_by},
    drain,
    exemptions::{self, Exemptions},
    fallback::Fallback,
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
    worker_protocol::is_shared,
};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Time between self-checks when no event arrives.
const SELF_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Pause before a failed reconciliation is retried: an interface may be appearing or disappearing, or the kernel may
/// still be detaching a program.
const RECONCILE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time between reads of the packet counters: metrics are rarely scraped more often than every 15 seconds.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(5);

/// Reason why this agent stopped serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// Another agent has taken over the datapath.
    HandedOver,
}

/// This agent while it serves the node.
pub(super) struct ActiveAgent<'a> {
    pub(super) config: &'a Config,
    pub(super) channels: &'a Channels,
    pub(super) interface_ages: &'a InterfaceAges,
    pub(super) lock: &'a NodeLock,
    pub(super) stop: &'a mut Stop,
}

/// Work that is due.
enum Event {
    Reconcile,
    SelfCheck,
    ReconcileExemptions,
    ReadCounters,
    HandOver(Successor),
    Stop,
}

impl ActiveAgent<'_> {
    /// Starts a worker, takes over the datapath and keeps it up. With a predecessor, pods notice nothing of this until
    /// the worker can serve them. An error leaves the node closed.
    pub(super) async fn serve(
        &mut self,
        takeover_lock: TakeoverLock,
        predecessor: Option<Predecessor>,
    ) -> anyhow::Result<Ended> {
        let (config, channels) = (&self.config.datapath, self.channels);
        channels.publish_conditions(vec![not_owner("this agent is starting")]);
        channels.worker.send_modify(|worker| worker.ready = false);
        // Before the datapath is opened, so that no event is lost in between.
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
        let (shared, others): (Vec<_>, Vec<_>) = datapath.listeners().iter().partition(|listener| is_shared(listener));
        // On the other listeners the worker alone accepts: it gets the connections that exist, and no later ones.
        drain::shut(&others);
        if ended == Ended::Stopped && !others.is_empty() {
            drain::until_done(&others).await;
        }
        // While the worker drains, new connections get the fixed answer.
        channels.worker.send_modify(|worker| worker.ready = false);
        let stopped = tokio::select! {
            stopped = supervisor.stop() => stopped,
            () = fallback.run(channels) => Ok(()),
        };
        if ended == Ended::Stopped {
            drain::shut(&shared);
            tokio::select! {
                () = drain::until_done(&shared) => {}
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
                        tracing::warn!("the active agent has ended: taking over at once");
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

    /// Claims the datapath for this agent, and listens for a successor.
    async fn claim(&mut self, datapath: &mut Datapath, exemptions: &mut Exemptions<'_>) -> anyhow::Result<Successors> {
        // From the claim on, connections come to this agent's worker.
        datapath.announce_interfaces(|interfaces| self.channels.publish_interfaces(interfaces)).await?;
        self.channels.publish_kubepods(datapath);
        datapath.claim()?;
        self.lock.downgrade()?;
        let successors = Successors::listen(&self.config.datapath.run_dir, self.interface_ages.clone())?;
        // Before the hooks are attached: an exempt pod must never be refused.
        exemptions.reconcile();
        self.channels.claims.send_modify(|claims| *claims += 1);
        datapath.reconcile(|interfaces| self.channels.publish_interfaces(interfaces)).await;
        datapath.remove_other_layouts()?;
        datapath.self_check().await;
        datapath.probe().await;
        self.channels.publish(datapath, exemptions.condition());
        Ok(successors)
    }

    /// Reacts to events of the node, and checks the datapath periodically.
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
            // Only waiting is cancelled here, never a repair.
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
                    tracing::warn!("another agent has taken this node's datapath: standing by");
                    return Ok(self.withdraw(datapath).await);
                }
                Event::HandOver(successor) => match successor.hand_over(self.interfaces()).await {
                    Ok(()) => return Ok(self.withdraw(datapath).await),
                    Err(error) => {
                        tracing::warn!("the successor did not take over: {error:#}; this one goes on");
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

    /// Goes on standby, and returns once the listening sockets are drained. A request to stop doesn't cut this short.
    async fn withdraw(&self, datapath: &Datapath) -> Ended {
        self.channels.datapath.send_replace(None);
        self.channels.publish_conditions(vec![standing_by()]);
        drain::until_empty(datapath.listeners()).await;
        tracing::info!("handed over: standing by until the active agent ends");
        Ended::HandedOver
    }
}

/// Waits until pods would not notice a takeover: this agent has the list of exempt pods, its worker is ready, and a
/// server was reached.
async fn until_able_to_serve(channels: &Channels) {
    let waiting = not_owner("another agent serves this node until this one has a worker and has reached a server");
    let mut exempt = channels.exempt.subscribe();
    loop {
        let problem = exempt.borrow_and_update().problem();
        let Some(problem) = problem else { break };
        channels.publish_conditions(vec![waiting.clone(), exemptions::condition(Some(problem))]);
        // An error means that this agent is ending.
        drop(exempt.changed().await);
    }
    channels.publish_conditions(vec![waiting]);
    let mut worker = channels.worker.subscribe();
    drop(worker.wait_for(|worker| worker.ready && worker.server_reached).await);
}

//! Reconciles the exempt pods, in the kernel map and on disk, with what the Kubernetes API reports, while this agent is
//! the active one.

use super::channels::Channels;
use crate::{
    attestation::PodUid,
    config::Config,
    datapath::{
        node::kubepods::Kubepods,
        programs::pins::Pins,
        redirect::exempt_map::{ExemptMap, ExemptPods},
    },
    exemptions::{self, Known, Lists},
    report::Condition,
};
use std::{collections::BTreeSet, future, time::Duration};
use tokio::{sync::watch, time::sleep};

/// Name of the condition.
const EXEMPTIONS: &str = "exemptions";
/// Time between looks for the cgroup of an exempt pod while it is missing: the kubelet creates it without notification.
const CGROUP_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Returns the lists that an earlier agent has left on disk.
pub(super) fn recall(config: &Config) -> Known {
    let accounts = &config.exempt.accounts;
    let left = match &config.exempt.node {
        Some(node) if !accounts.is_empty() => exemptions::read(&config.datapath.state_dir, node),
        _ => Ok(Lists::new()),
    };
    let left = left.unwrap_or_else(|error| {
        tracing::warn!("the list of exempt pods on disk is ignored: {error:#}");
        Lists::new()
    });
    Known::recalled(accounts, left)
}

/// Creates the condition; it is met if there is no problem.
pub(super) fn condition(problem: Option<String>) -> Condition {
    Condition { name: EXEMPTIONS.to_owned(), problem }
}

/// The exemptions while this agent is the active one.
pub(super) struct Exemptions<'a> {
    config: &'a Config,
    known: watch::Receiver<Known>,
    kubepods: watch::Receiver<Option<Kubepods>>,
    map: ExemptMap,
    saved: Option<Lists>,
    /// Exempt pods that have no cgroup yet.
    awaited: BTreeSet<PodUid>,
    condition: Condition,
}

impl<'a> Exemptions<'a> {
    /// Exempts this agent's own pod, and leaves the rest of the map to the active agent, which may still be another
    /// one.
    pub(super) fn open(config: &'a Config, channels: &Channels, pins: &Pins) -> anyhow::Result<Self> {
        let mut map = ExemptMap::open(pins)?;
        if let Some(own) = config.exempt.own_pod {
            map.add_own(Kubepods::find(&config.datapath.kubepods)?.as_ref(), own)?;
        }
        Ok(Self {
            config,
            known: channels.exempt.subscribe(),
            kubepods: channels.kubepods.subscribe(),
            map,
            saved: None,
            awaited: BTreeSet::new(),
            condition: condition(None),
        })
    }

    /// Returns when [`Self::reconcile`] has work to do.
    pub(super) async fn due(&mut self) {
        let kubepods = self.kubepods.borrow().clone();
        // Neither channel is closed while this agent serves.
        tokio::select! {
            _ = self.known.changed() => {}
            _ = self.kubepods.changed() => {}
            () = one_has_a_cgroup(&self.awaited, kubepods) => {}
        }
    }

    /// Reconciles the map with the lists and the existing cgroups, and the file with the lists from the API.
    pub(super) fn reconcile(&mut self) {
        let known = self.known.borrow_and_update().clone();
        let kubepods = self.kubepods.borrow_and_update().clone();
        let pods = ExemptPods { listed: known.pods(), complete: known.is_complete(), own: self.config.exempt.own_pod };
        let synced = self.map.sync(kubepods.as_ref(), &pods).map(|awaited| self.awaited = awaited);
        let saved = self.save(&known);
        let problem = synced.and(saved).map_err(|error| format!("{error:#}")).err();
        self.condition = condition(problem.or_else(|| known.problem()));
    }

    fn save(&mut self, known: &Known) -> anyhow::Result<()> {
        if let (Some(node), Some(lists)) = (&self.config.exempt.node, known.lists_from_api())
            && self.saved.as_ref() != Some(lists)
        {
            exemptions::write(&self.config.datapath.state_dir, node, lists)?;
            self.saved = Some(lists.clone());
        }
        Ok(())
    }

    /// Returns the condition as of the last [`Self::reconcile`].
    pub(super) const fn condition(&self) -> &Condition {
        &self.condition
    }
}

/// Waits until a pod has its cgroup.
async fn one_has_a_cgroup(awaited: &BTreeSet<PodUid>, kubepods: Option<Kubepods>) {
    let Some(kubepods) = kubepods.filter(|_| !awaited.is_empty()) else { return future::pending().await };
    loop {
        sleep(CGROUP_POLL_INTERVAL).await;
        if kubepods.pods().is_ok_and(|found| found.values().any(|pod| awaited.contains(pod))) {
            return;
        }
    }
}

//! The watch channels that connect the parent's tasks. Only the newest value of each counts.

use super::worker::WorkerState;
use crate::{
    datapath::{self, Datapath, node::kubepods::Kubepods},
    exemptions::Known,
    report::{Condition, DatapathReport, Interface, Status},
};
use tokio::sync::watch;

/// The watch channels that the parent's tasks share.
pub(crate) struct Channels {
    /// The interfaces that carry connections of pods.
    pub(crate) interfaces: watch::Sender<Vec<Interface>>,
    /// The cgroup below which the kubelet keeps those of pods; `None` if the programs can't use one.
    pub(crate) kubepods: watch::Sender<Option<Kubepods>>,
    /// The pods that keep the node's role.
    pub(crate) exempt: watch::Sender<Known>,
    /// State of the datapath.
    pub(crate) status: watch::Sender<Status>,
    /// The datapath, while this agent is the active one.
    pub(crate) datapath: watch::Sender<Option<DatapathReport>>,
    /// State of the worker.
    pub(crate) worker: watch::Sender<WorkerState>,
    /// How often this agent has claimed the datapath.
    pub(crate) claims: watch::Sender<u64>,
}

impl Channels {
    /// Creates the channels of an agent that has no datapath and no worker yet.
    pub(super) fn new(exempt: Known) -> Self {
        Self {
            interfaces: watch::Sender::new(Vec::new()),
            kubepods: watch::Sender::new(None),
            exempt: watch::Sender::new(exempt),
            status: watch::Sender::new(Status::default()),
            datapath: watch::Sender::new(None),
            worker: watch::Sender::new(WorkerState::default()),
            claims: watch::Sender::new(0),
        }
    }

    /// Publishes the interfaces, if they have changed.
    pub(super) fn publish_interfaces(&self, interfaces: Vec<Interface>) {
        self.interfaces.send_if_modified(|known| {
            let changed = *known != interfaces;
            *known = interfaces;
            changed
        });
    }

    /// Publishes the state of the datapath and of the exemptions.
    pub(super) fn publish(&self, datapath: &Datapath, exemptions: &Condition) {
        self.publish_kubepods(datapath);
        self.datapath.send_replace(Some(datapath.report()));
        self.status.send_modify(|status| {
            status.packets = datapath.packets();
            status.repairs = datapath.repairs();
            status.notices = datapath.notices();
            status.probes = datapath.probes().to_vec();
        });
        self.publish_conditions(datapath.conditions().chain([exemptions]).cloned().collect());
    }

    /// Publishes the cgroup of pods, if it has changed.
    pub(super) fn publish_kubepods(&self, datapath: &Datapath) {
        self.kubepods.send_if_modified(|known| {
            let changed = known.as_ref() != datapath.kubepods();
            if changed {
                *known = datapath.kubepods().cloned();
            }
            changed
        });
    }

    /// Publishes the conditions and logs those that have changed.
    pub(super) fn publish_conditions(&self, conditions: Vec<Condition>) {
        let known: Vec<Condition> = self.status.borrow().conditions.clone();
        for condition in conditions.iter().filter(|condition| !known.contains(condition)) {
            match &condition.problem {
                Some(problem) if condition.name == datapath::OWNER => tracing::info!("{problem}"),
                Some(problem) => tracing::error!(condition = condition.name, "{problem}"),
                None => tracing::info!(condition = condition.name, "holds"),
            }
        }
        self.status.send_modify(|status| status.conditions = conditions);
    }
}

/// Returns the condition that all others depend on, as not met.
pub(super) fn not_owner(problem: &str) -> Condition {
    Condition { name: datapath::OWNER.to_owned(), problem: Some(problem.to_owned()) }
}

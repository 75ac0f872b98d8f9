//! The watch channels that connect the parent's tasks. Only the newest value of each counts.

use crate::{
    datapath::{self, Datapath, node::kubepods::Kubepods},
    exemptions::Known,
    report::{Condition, DatapathReport, Interface, Report, Status},
};
use tokio::sync::watch;

/// The only condition of a standby agent. It is always met: a DaemonSet ends the older of two pods only when
/// the younger is ready, whichever of them is active.
const STAND_BY: &str = "stand-by";

/// State of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct WorkerState {
    /// It accepts connections.
    pub(super) ready: bool,
    /// This worker or an earlier one has reached a server since the agent started.
    pub(super) server_reached: bool,
}

/// The watch channels that the parent's tasks share.
pub(super) struct Channels {
    /// The interfaces that carry connections of pods.
    pub(super) interfaces: watch::Sender<Vec<Interface>>,
    /// The cgroup that contains those of pods; `None` if the programs can use no such cgroup.
    pub(super) kubepods: watch::Sender<Option<Kubepods>>,
    /// The pods that keep the node role.
    pub(super) exempt: watch::Sender<Known>,
    /// State of the datapath.
    pub(super) status: watch::Sender<Status>,
    /// The datapath, while this agent is the active one.
    pub(super) datapath: watch::Sender<Option<DatapathReport>>,
    /// State of the worker.
    pub(super) worker: watch::Sender<WorkerState>,
    /// Number of times that this agent has claimed the datapath.
    pub(super) claims: watch::Sender<u64>,
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
                None => tracing::info!(condition = condition.name, "condition met"),
            }
        }
        self.status.send_modify(|status| status.conditions = conditions);
    }

    /// Returns the state of the agent, for the status socket.
    pub(super) fn report(&self) -> Report {
        let conditions = self.conditions();
        Report {
            ready: conditions.iter().all(|condition| condition.problem.is_none()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: self.datapath.borrow().clone(),
            status: Status { conditions, ..self.status.borrow().clone() },
        }
    }

    /// Returns all conditions: those that were published, and those of the worker.
    fn conditions(&self) -> Vec<Condition> {
        let worker = *self.worker.borrow();
        let mut conditions = self.status.borrow().conditions.clone();
        if conditions.iter().any(|condition| condition.name == STAND_BY) {
            // A standby agent needs no worker.
            return conditions;
        }
        let problem = |holds: bool, problem: &str| (!holds).then(|| problem.to_owned());
        conditions.push(Condition {
            name: "worker".to_owned(),
            problem: problem(worker.ready, "no worker answers yet: its log lines say why"),
        });
        conditions.push(Condition {
            name: "server-reached".to_owned(),
            problem: problem(
                worker.server_reached,
                "no server was reached since the agent started: look at --server-address and the certificates",
            ),
        });
        conditions
    }
}

/// Creates the condition of a standby agent.
pub(super) fn standing_by() -> Condition {
    Condition { name: STAND_BY.to_owned(), problem: None }
}

/// Creates the condition of an agent that does not own the datapath.
pub(super) fn not_owner(problem: &str) -> Condition {
    Condition { name: datapath::OWNER.to_owned(), problem: Some(problem.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_that_stands_by_is_ready_without_a_worker() {
        let channels = Channels::new(Known::default());
        channels.publish_conditions(vec![standing_by()]);
        assert!(channels.report().ready);
        channels.publish_conditions(Vec::new());
        assert!(!channels.report().ready, "no worker");
    }
}

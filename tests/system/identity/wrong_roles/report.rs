//! Outcomes of the requests, and the criteria for them.

use super::{EVENTS, requests::Manner, world::Knowledge};
use anyhow::{Result, ensure};
use kiam_tests::leaks;
use std::{fmt, time::Duration};

/// Minimum percentage of right answers where the server had the information: a server that refuses everything is never
/// wrong.
const RIGHT_PERCENT_MIN: usize = 80;
/// Minimum number of waits for a meaningful result.
const WAITS_MIN: usize = 100;
/// Wrong answers that are printed in full.
const EXAMPLES_MAX: usize = 5;

/// Outcome of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The role of the pod that sent the request.
    Right,
    /// No role.
    Refused,
    /// A role that is not that pod's.
    Wrong(String),
    /// No answer.
    Failed(String),
}

/// Counts of outcomes.
#[derive(Debug, Clone, Default)]
struct Count {
    right: usize,
    refused: usize,
    wrong: usize,
}

impl Count {
    fn all(&self) -> usize {
        self.right + self.refused + self.wrong
    }
}

/// All outcomes.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    agent: Count,
    /// Subset for which the server had the information.
    known: Count,
    borrowing: Count,
    kiam: Count,
    /// Times from the report to Kubernetes to the answer.
    waits: Vec<Duration>,
    /// Requests that were never served.
    unserved: usize,
    examples: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    /// Counts an outcome; `known` if the server had the right answer.
    pub(super) fn add(&mut self, manner: Manner, outcome: Outcome, known: bool) {
        let count = match manner {
            Manner::Agent => &mut self.agent,
            Manner::Borrowing(_) => &mut self.borrowing,
            Manner::Kiam => &mut self.kiam,
        };
        let counts = match known && manner == Manner::Agent {
            true => vec![count, &mut self.known],
            false => vec![count],
        };
        for count in counts {
            match &outcome {
                Outcome::Right => count.right += 1,
                Outcome::Refused => count.refused += 1,
                Outcome::Wrong(_) => count.wrong += 1,
                Outcome::Failed(_) => {}
            }
        }
        self.keep(manner, outcome);
    }

    /// Counts the last request of a wait; `since_report` is the time since the report to Kubernetes, `None` if the server
    /// may not have seen it. `in_vain`: the whole request was sent after the report.
    pub(super) fn waited(&mut self, outcome: Outcome, since_report: Option<Duration>, in_vain: bool) {
        match (&outcome, since_report) {
            (Outcome::Right, Some(wait)) => self.waits.push(wait),
            (Outcome::Refused, Some(_)) if in_vain => self.unserved += 1,
            _ => {}
        }
        self.add(Manner::Agent, outcome, false);
    }

    fn keep(&mut self, manner: Manner, outcome: Outcome) {
        match outcome {
            Outcome::Wrong(example) if manner != Manner::Kiam && self.examples.len() < EXAMPLES_MAX => {
                self.examples.push(example);
            }
            Outcome::Failed(failure) => self.failures.push(failure),
            _ => {}
        }
    }
}

/// Results of a run.
#[derive(Debug)]
pub(super) struct Report {
    tally: Tally,
    events: usize,
    pods: u64,
}

impl Report {
    pub(super) fn new(tally: &Tally, events: usize, pods: u64) -> Self {
        let mut tally = tally.clone();
        tally.waits.sort_unstable();
        Self { tally, events, pods }
    }

    /// Fails if a pod got another pod's role, or if the run could not have revealed it.
    pub(super) fn judge(&self, knowledge: Knowledge) -> Result<()> {
        let Tally { agent, known, borrowing, kiam, waits, unserved, examples, failures } = &self.tally;
        ensure!(agent.wrong + borrowing.wrong == 0, "{}:\n{}", leaks::OTHER_ROLE, examples.join("\n"));
        ensure!(failures.is_empty(), "{} requests got no answer: {}", failures.len(), failures[0]);
        ensure!(self.events >= EVENTS, "only {} events", self.events);
        ensure!(kiam.wrong > 0, "control: no request of this run could have been answered wrongly");
        ensure!(
            knowledge == Knowledge::InterfaceAge || borrowing.refused > 0,
            "no request came from another pod's address"
        );
        ensure!(100 * known.right >= RIGHT_PERCENT_MIN * known.all(), "too few right answers: {known:?}");
        ensure!(waits.len() >= WAITS_MIN && *unserved == 0, "{} waits, {unserved} of them never served", waits.len());
        Ok(())
    }

    /// Returns the wait that this percentage of pods did not exceed.
    fn wait(&self, percent: usize) -> Duration {
        let waits = &self.tally.waits;
        let rank = (waits.len() * percent).div_ceil(100);
        waits.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { agent, known, borrowing, kiam, waits, unserved, .. } = &self.tally;
        writeln!(f, "{} events of {} pods", self.events, self.pods)?;
        for (what, count) in [
            ("with evidence from the kernel   ", agent),
            ("of these, seen by the server    ", known),
            ("from another pod's address      ", borrowing),
            ("as kiam v4's agents send them   ", kiam),
        ] {
            let Count { right, refused, wrong } = count;
            writeln!(f, "{what}: {right:6} right, {refused:6} refused, {wrong:5} wrong")?;
        }
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.wait(percent));
        write!(
            f,
            "served after the report: p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?}, of {} waits, {unserved} never served",
            waits.len()
        )
    }
}

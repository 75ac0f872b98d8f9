//! What came of the questions, and what of it is good enough.

use super::{EVENTS, ask::Manner, world::Knowledge};
use anyhow::{Result, ensure};
use kiam_tests::leaks;
use std::{fmt, time::Duration};

/// Longest that a pod may wait for its role from when Kubernetes was told of it, which is before the server sees it;
/// 99 in a hundred of them, since a machine that has much else to do makes some wait for a processor.
const SERVED_WITHIN: Duration = Duration::from_millis(500);
/// Fewest right answers in a hundred whose answer the server knew: one that refuses everything is never wrong.
const RIGHT_PERCENT_MIN: usize = 80;
/// Fewest waits that tell anything.
const WAITS_MIN: usize = 100;
/// Wrong answers that are told in full.
const EXAMPLES_MAX: usize = 5;

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The role of the pod that asked.
    Right,
    /// No role.
    Refused,
    /// A role that is not that pod's.
    Wrong(String),
    /// Not an answer.
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

/// Everything that came of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    agent: Count,
    /// Of these, the ones whose answer the server knew.
    known: Count,
    borrowing: Count,
    kiam: Count,
    /// From when Kubernetes was told to the answer.
    waits: Vec<Duration>,
    /// Waits in vain.
    unserved: usize,
    examples: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    /// `known`: the server knew the right answer.
    pub(super) fn asked(&mut self, manner: Manner, outcome: Outcome, known: bool) {
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

    /// `since_told`: since Kubernetes was told of the pod; `None` where that tells nothing of the server.
    pub(super) fn waited(&mut self, outcome: Outcome, since_told: Option<Duration>) {
        match (&outcome, since_told) {
            (Outcome::Right, Some(wait)) => self.waits.push(wait),
            (Outcome::Refused, Some(wait)) if wait > SERVED_WITHIN => self.unserved += 1,
            _ => {}
        }
        self.asked(Manner::Agent, outcome, false);
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

/// A run, for people and for the judge.
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

    /// # Errors
    /// Somebody was told another pod's role; or nothing that this run did could have shown it.
    pub(super) fn judge(&self, knowledge: Knowledge) -> Result<()> {
        let Tally { agent, known, borrowing, kiam, waits, unserved, examples, failures } = &self.tally;
        ensure!(agent.wrong + borrowing.wrong == 0, "{}:\n{}", leaks::OTHER_ROLE, examples.join("\n"));
        ensure!(failures.is_empty(), "{} questions got no answer: {}", failures.len(), failures[0]);
        ensure!(self.events >= EVENTS, "only {} events", self.events);
        ensure!(kiam.wrong > 0, "control: nothing here could have been answered wrongly");
        ensure!(knowledge == Knowledge::InterfaceAge || borrowing.refused > 0, "nobody asked from another's address");
        ensure!(100 * known.right >= RIGHT_PERCENT_MIN * known.all(), "too few right answers: {known:?}");
        ensure!(waits.len() >= WAITS_MIN && *unserved == 0, "{} waits, and {unserved} in vain", waits.len());
        ensure!(self.wait(99) <= SERVED_WITHIN, "new owners were served {:?} after it was told", self.wait(99));
        Ok(())
    }

    /// The wait that so many in a hundred were not longer than.
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
            ("asked with what the kernel tells", agent),
            ("of these, known to the server   ", known),
            ("asked from another's address    ", borrowing),
            ("asked as kiam v4's agents do    ", kiam),
        ] {
            let Count { right, refused, wrong } = count;
            writeln!(f, "{what}: {right:6} right, {refused:6} refused, {wrong:5} wrong")?;
        }
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.wait(percent));
        write!(
            f,
            "served after it was told: p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?}, of {} waits, {unserved} in vain",
            waits.len()
        )
    }
}

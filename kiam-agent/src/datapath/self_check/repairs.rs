//! Counters of repairs: objects that were lost or changed while the agent ran, and were set up again.

use std::collections::BTreeMap;

/// Kind of object that can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lost {
    /// A rule of the fence.
    Rule,
    /// The fence's route.
    Route,
    /// The program on an interface of pods.
    Redirect,
    /// A program on an uplink.
    Guard,
    /// The backstop.
    Backstop,
    /// A listening socket in its slot.
    Listener,
    /// The pin of a map.
    Map,
}

impl Lost {
    const ALL: [Self; 7] =
        [Self::Rule, Self::Route, Self::Redirect, Self::Guard, Self::Backstop, Self::Listener, Self::Map];

    /// Returns the name in metrics and tables.
    const fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Redirect => "redirect",
            Self::Guard => "guard",
            Self::Backstop => "backstop",
            Self::Listener => "listener",
            Self::Map => "map",
        }
    }
}

/// Number of losses by kind.
#[derive(Debug, Default)]
pub(crate) struct Repairs(BTreeMap<Lost, u64>);

impl Repairs {
    /// Counts and logs a loss.
    pub(crate) fn count(&mut self, lost: Lost, what: &str) {
        *self.0.entry(lost).or_default() += 1;
        tracing::warn!(lost = lost.name(), "{what} was removed or changed; restoring it");
    }

    /// Returns the numbers of all kinds, including those that are zero.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let count = |lost: Lost| (lost.name().to_owned(), self.0.get(&lost).copied().unwrap_or_default());
        Lost::ALL.into_iter().map(count).collect()
    }
}

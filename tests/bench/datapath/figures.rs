//! Measured figures and their table.

use super::variants::Kind;
use comfy_table::{Table, presets};
use std::time::Duration;

/// Other load on the node during the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    /// nat rules ahead of the DNAT that match none of its packets.
    pub(super) rules: usize,
    /// Interfaces that lead to pods.
    pub(super) interfaces: usize,
}

/// Result of a case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Median connection time, in the order of [`Kind::ALL`].
    pub(super) p50: [Duration; Kind::ALL.len()],
    /// Time from the agent's start until its program is attached to every interface.
    pub(super) attached: Option<Duration>,
}

impl Figures {
    pub(super) fn of(&self, kind: Kind) -> Duration {
        self.p50[kind as usize]
    }

    fn ratio(&self, kind: Kind, to: Kind) -> String {
        format!("{:.2}", self.of(kind).as_secs_f64() / self.of(to).as_secs_f64())
    }
}

pub(super) fn table(measured: &[(Case, Figures)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let kinds = Kind::ALL.map(|kind| format!("{}, p50", kind.name()));
    let mut header = vec!["other rules".to_owned(), "interfaces".to_owned()];
    header.extend(kinds);
    header.extend(
        ["redirect / direct", "redirect / DNAT", "redirect / redirect at one interface", "attached after"]
            .map(str::to_owned),
    );
    table.set_header(header);
    let first = measured.first().map(|(_, figures)| *figures);
    for (case, figures) in measured {
        let mut row = vec![case.rules.to_string(), case.interfaces.to_string()];
        row.extend(Kind::ALL.map(|kind| microseconds(figures.of(kind))));
        row.push(figures.ratio(Kind::Redirect, Kind::Nothing));
        row.push(figures.ratio(Kind::Redirect, Kind::Dnat));
        let alone = first.filter(|_| case.rules == 0).map(|first| {
            format!("{:.2}", figures.of(Kind::Redirect).as_secs_f64() / first.of(Kind::Redirect).as_secs_f64())
        });
        row.push(alone.unwrap_or_default());
        row.push(figures.attached.map(|took| format!("{:.0} ms", took.as_secs_f64() * 1e3)).unwrap_or_default());
        table.add_row(row);
    }
    table
}

fn microseconds(took: Duration) -> String {
    format!("{:.0} µs", took.as_secs_f64() * 1e6)
}

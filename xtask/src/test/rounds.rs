//! Repeated runs of the tiers, to find tests that fail once in a while, and load that runs next to them.

use crate::{outcome::Outcome, progress};
use comfy_table::{Table, presets};
use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Runs `round` the given number of times, and prints a table of the results if there is more than one. Returns their
/// sum.
pub(crate) fn run(rounds: u32, mut round: impl FnMut() -> anyhow::Result<Outcome>) -> Outcome {
    let mut results = Vec::new();
    for number in 1..=rounds {
        if rounds > 1 {
            progress::say(&format!("\n== round {number} of {rounds}"));
        }
        let started = Instant::now();
        let outcome = round().unwrap_or_else(|error| {
            // The rounds that follow may still find something.
            progress::say(&format!("round {number}: {error:#}"));
            Outcome { failed: 1, ..Outcome::default() }
        });
        results.push((outcome, started.elapsed()));
    }
    if rounds > 1 {
        progress::say(&format!("\n{}", table(&results)));
    }
    let mut total = Outcome::default();
    results.iter().for_each(|(outcome, _)| total += *outcome);
    total
}

fn table(results: &[(Outcome, Duration)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["round", "passed", "failed", "skipped", "minutes"]);
    for (number, (outcome, time)) in (1..).zip(results) {
        let minutes = format!("{:.1}", time.as_secs_f64() / 60.0);
        table.add_row([
            format!("{number}"),
            outcome.passed.to_string(),
            outcome.failed.to_string(),
            outcome.skipped.to_string(),
            minutes,
        ]);
    }
    table
}

/// Busy loops, one thread each, until it is dropped.
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
}

impl Load {
    /// Starts the loops.
    pub(crate) fn start(loops: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        for _ in 0..loops {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        Self { ended }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_one_round_counts_in_the_sum() {
        let mut failed = [0, 1, 0].into_iter();
        let round = || Ok(Outcome { passed: 2, failed: failed.next().unwrap_or_default(), skipped: 0 });
        assert_eq!(run(3, round), Outcome { passed: 6, failed: 1, skipped: 0 });
    }
}

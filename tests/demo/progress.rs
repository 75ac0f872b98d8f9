//! Display of long steps: a spinner on a terminal, otherwise one line each.

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Interval between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Runs the steps, and starts no further one after the request to end.
#[derive(Debug)]
pub(super) struct Progress {
    end: mpsc::Receiver<()>,
}

impl Progress {
    /// Starts to watch standard input: its end is the request to end.
    pub(super) fn start() -> Self {
        let (sender, end) = mpsc::channel();
        thread::spawn(move || {
            // Any input, and an error too, is ignored until the end.
            drop(io::stdin().read_to_end(&mut Vec::new()));
            drop(sender);
        });
        Self { end }
    }

    /// Waits up to `patience` for the request to end; returns whether it has arrived.
    pub(super) fn wait_for_end(&self, patience: Duration) -> bool {
        // No value is ever sent: the wait ends early because the sender is dropped.
        self.end.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout)
    }

    /// Returns whether the request to end has arrived.
    pub(super) fn is_ending(&self) -> bool {
        self.end.try_recv() != Err(mpsc::TryRecvError::Empty)
    }

    /// Runs a step. Fails with the step's error, or if the request to end has arrived.
    pub(super) fn step<T>(&self, label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        ensure!(!self.is_ending(), "ended early, as requested");
        let started = Instant::now();
        let spinner = spinner(label);
        let result = work();
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let mark = match (result.is_ok(), io::stderr().is_terminal()) {
            (true, true) => "\x1b[32m✓\x1b[0m",
            (true, false) => "✓",
            (false, true) => "\x1b[31m✗\x1b[0m",
            (false, false) => "✗",
        };
        // Standard error may be closed; there is nothing to do about that.
        drop(writeln!(io::stderr(), "{mark} {label} ({:.1} s)", started.elapsed().as_secs_f64()));
        result
    }
}

fn spinner(label: &str) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(TICK);
    Some(bar)
}

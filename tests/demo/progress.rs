//! Long steps, shown while they run: a spinner on a terminal, a line each elsewhere.

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Shows the steps, and starts none after the end was asked for.
#[derive(Debug)]
pub(super) struct Progress {
    end: mpsc::Receiver<()>,
}

impl Progress {
    /// Takes standard input as the lifeline: the end of it is the wish to end.
    pub(super) fn start() -> Self {
        let (sender, end) = mpsc::channel();
        thread::spawn(move || {
            // Whatever comes through it, and an error too, means nothing; then it has ended.
            drop(io::stdin().read_to_end(&mut Vec::new()));
            drop(sender);
        });
        Self { end }
    }

    /// Waits for the wish to end, for so long; whether it has come.
    pub(super) fn wait_for_end(&self, patience: Duration) -> bool {
        // Nothing is ever sent: what ends the wait before its time is that the sender is dropped.
        self.end.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout)
    }

    /// Whether the wish to end has come.
    pub(super) fn is_ending(&self) -> bool {
        self.end.try_recv() != Err(mpsc::TryRecvError::Empty)
    }

    /// Runs a step.
    ///
    /// # Errors
    /// The step's own; or the end was asked for.
    pub(super) fn step<T>(&self, label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        ensure!(!self.is_ending(), "ended before it was through");
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
        // Nobody reads standard error any more: nothing to do about that.
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

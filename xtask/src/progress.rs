//! Shows long steps while they run: a spinner on a terminal, one line each elsewhere. The output of a step goes to a log
//! below `target/xtask`; the end of the log is shown if the step fails.

use crate::workspace;
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::{self, File},
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Number of lines shown of a failed step's log.
const TAIL: usize = 40;
/// Time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Runs a command to its end, with its output in a log.
///
/// # Errors
/// It cannot be started, or it fails, with the end of its log.
pub(crate) fn step(label: &str, command: &mut Command) -> anyhow::Result<()> {
    let log = log_path(label)?;
    let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let shown = Shown::start(label);
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("{label}: cannot start {}", program.display()))?;
    shown.finish(status.success());
    if !status.success() {
        bail!("{label} failed ({status}); the end of {}:\n{}", log.display(), tail(&log));
    }
    Ok(())
}

/// Prints a line on standard error.
pub(crate) fn say(line: &str) {
    // A closed standard error is no reason to fail.
    drop(writeln!(std::io::stderr(), "{line}"));
}

enum Shown {
    Spinner(ProgressBar, String, Instant),
    Line(String, Instant),
}

impl Shown {
    fn start(label: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Line(label.to_owned(), Instant::now());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(TICK);
        Self::Spinner(bar, label.to_owned(), Instant::now())
    }

    fn finish(self, succeeded: bool) {
        let mark = if succeeded { "✓" } else { "✗" };
        match self {
            Self::Spinner(bar, label, started) => {
                bar.finish_and_clear();
                say(&format!("{mark} {label} ({:.0} s)", started.elapsed().as_secs_f64()));
            }
            Self::Line(label, started) => {
                say(&format!("{mark} {label} ({:.0} s)", started.elapsed().as_secs_f64()));
            }
        }
    }
}

fn log_path(label: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace::target().join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(folder.join(format!("{name}.log")))
}

fn tail(log: &std::path::Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|line| format!("  {line}\n")).collect()
}

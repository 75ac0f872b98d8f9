//! Looks for traces that tests and demo must not leave on the machine.

use crate::{root, setup};
use anyhow::{Context as _, bail};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Commands, and the text that marks a line of their output as ours.
const TRACES: [(&[&str], &str); 6] = [
    (&["ip", "netns", "list"], "kiam-"),
    (&["ip", "rule", "show"], "4242"),
    (&["ip", "-6", "rule", "show"], "4242"),
    (&["bpftool", "prog", "show"], "name kiam_"),
    (&["bpftool", "map", "show"], "name kiam_"),
    (&["ps", "-A", "-o", "comm="], "kiam-"),
];
/// Part of the paths of our mounts.
const MOUNTED: &str = "/kiam-";
/// Time in which a killed process may end: its parent has to collect it, and that may be the init process.
const END_TIME_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Looks for traces in the machine's own namespaces.
///
/// # Errors
/// There are traces, still after [`END_TIME_MAX`], or a command is missing.
pub(crate) fn expect_none() -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let found = find()?;
        if found.is_empty() {
            return Ok(());
        }
        if start.elapsed() > END_TIME_MAX {
            bail!("left behind:\n  {}", found.join("\n  "));
        }
        thread::sleep(PAUSE);
    }
}

fn find() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for (command, trace) in TRACES {
        let [program, arguments @ ..] = command else { continue };
        if !setup::has(program) {
            bail!("{program} is missing, and with it the check of what was left behind: install it");
        }
        let output = root::command(program).args(arguments).output().with_context(|| format!("running {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        found
            .extend(text.lines().filter(|line| line.contains(trace)).map(|line| format!("{program}: {}", line.trim())));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    found.extend(mounts.lines().filter(|line| line.contains(MOUNTED)).map(|line| format!("mount: {line}")));
    Ok(found)
}

//! Tools that run to their end, and daemons that are kept and killed by their pid.

use crate::eventually::eventually;
use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// Time a daemon has to end after a signal: the agent drains for up to 5 s.
const EXIT_SECONDS_MAX: u64 = 20;
/// Bytes of a log that are printed with a failure.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// Runs a tool to its end and returns its standard output. If it does not exit with 0, the error contains the command
/// and its output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a tool to its end, whatever its exit status.
pub fn output(command: &mut Command) -> Result<std::process::Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// A process that is kept running and killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its output appended to the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("open {log:?}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Returns the process id. It is not reused while this value lives, because the process is not reaped before.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the process has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal. Fails if the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running()?, "{} has ended\n{}", self.name, self.log_tail());
        send_signal(self.pid(), signal)
    }

    /// Sends a signal and waits until the process has ended.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(Duration::from_secs(EXIT_SECONDS_MAX))
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), patience, || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("it still runs\n{}", self.log_tail()),
        })
    }

    /// Returns its whole output.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Asserts that its output contains a text.
    pub fn expect_log(&self, text: &str) -> Result<()> {
        ensure!(self.log().contains(text), "no «{text}» in\n{}", self.log_tail());
        Ok(())
    }

    /// Waits until its output contains a text.
    pub fn wait_log(&self, text: &str) -> Result<()> {
        let patience = Duration::from_secs(EXIT_SECONDS_MAX);
        eventually(&format!("«{text}» is in the log of {}", self.name), patience, || self.expect_log(text))
    }

    /// Returns the end of its output, under its name.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let mut start = log.len().saturating_sub(LOG_TAIL_BYTES);
        while !log.is_char_boundary(start) {
            start += 1;
        }
        format!("---- {} (pid {}) ----\n{}", self.name, self.pid(), &log[start..])
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.name);
        }
    }
}

/// Sends a signal to a process.
pub fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal).with_context(|| format!("{signal} to {pid}"))
}

/// Stops a process and waits until each of its threads has stopped.
pub fn freeze(pid: u32) -> Result<()> {
    /// A signal takes as long as the scheduler does.
    const SECONDS_MAX: u64 = 10;
    send_signal(pid, Signal::SIGSTOP)?;
    eventually(&format!("process {pid} has stopped"), Duration::from_secs(SECONDS_MAX), || {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            ensure!(status.contains("\nState:\tT"), "a thread still runs");
        }
        Ok(())
    })
}

/// Returns whether any thread of a process exists, not counting a zombie. The files of a process are closed when its
/// last thread has ended, which may be after its first thread.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !status.contains("\nState:\tZ") || threads > 1
}

/// Returns the children of a process, from `/proc`.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is no child.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let is_child = status.lines().any(|line| line.strip_prefix("PPid:\t") == Some(&parent.to_string()));
        if is_child && is_alive(pid) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Describes how a process ended.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

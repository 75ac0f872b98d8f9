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

/// How long a daemon may take to end after a signal: the agent drains for up to 5 s.
const EXIT_SECONDS_MAX: u64 = 20;
/// How much of a log is shown with a failure, in bytes.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// Runs a tool to its end and returns its standard output.
///
/// # Errors
/// The tool cannot be started or does not exit with 0; the error holds the command and what it said.
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
///
/// # Errors
/// The tool cannot be started.
pub fn output(command: &mut Command) -> Result<std::process::Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// A process that is kept running; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its output appended to the file `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the process not started.
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

    /// Its process id; not used again while this value lives, because the process is not reaped before.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running()?, "{} has ended\n{}", self.name, self.log_tail());
        send_signal(self.pid(), signal)
    }

    /// Sends a signal and waits until it has ended.
    ///
    /// # Errors
    /// It had ended before, or does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(Duration::from_secs(EXIT_SECONDS_MAX))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), patience, || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("it runs on\n{}", self.log_tail()),
        })
    }

    /// All that it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Asserts that it has written this.
    ///
    /// # Errors
    /// It has not; with the end of what it has written.
    pub fn expect_log(&self, text: &str) -> Result<()> {
        ensure!(self.log().contains(text), "no «{text}» in\n{}", self.log_tail());
        Ok(())
    }

    /// Waits until it writes this.
    ///
    /// # Errors
    /// It does not, in time.
    pub fn wait_log(&self, text: &str) -> Result<()> {
        let patience = Duration::from_secs(EXIT_SECONDS_MAX);
        eventually(&format!("«{text}» is in the log of {}", self.name), patience, || self.expect_log(text))
    }

    /// The end of what it wrote, under its name.
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
        // Ended already: nothing to kill, nothing to say.
        drop(self.child.kill());
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.name);
        }
    }
}

/// Sends a signal to a process of ours.
///
/// # Errors
/// There is no such process.
pub fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal).with_context(|| format!("{signal} to {pid}"))
}

/// Stops a process and waits until each of its threads stands still.
///
/// # Errors
/// There is no such process.
pub fn freeze(pid: u32) -> Result<()> {
    /// A signal takes as long as the scheduler does.
    const SECONDS_MAX: u64 = 10;
    send_signal(pid, Signal::SIGSTOP)?;
    eventually(&format!("process {pid} stands still"), Duration::from_secs(SECONDS_MAX), || {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            ensure!(status.contains("\nState:\tT"), "a thread runs");
        }
        Ok(())
    })
}

/// Whether a process is there, with any of its threads, and more than a corpse that its parent has not buried. The
/// files of a process are closed when its last thread has ended, which may be after the first one has.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !status.contains("\nState:\tZ") || threads > 1
}

/// The children of a process, from `/proc`.
///
/// # Errors
/// `/proc` is not readable.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile is nobody's child.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let is_child = status.lines().any(|line| line.strip_prefix("PPid:\t") == Some(&parent.to_string()));
        if is_child && is_alive(pid) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// How a process ended, in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

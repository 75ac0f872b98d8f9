//! A running agent: its parent, and the parent's worker.

use super::{SOON, binaries::Binaries};
use crate::{
    clients::{Answer, Environment},
    eventually::eventually,
    fakes::pki::TlsFiles,
    node::{
        netns::Netns,
        process::{self, Daemon},
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

/// Port of the agent's admin endpoints, on loopback.
pub const ADMIN_PORT: u16 = 8181;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The parent, with the log of both processes.
    pub daemon: Daemon,
    binary: PathBuf,
    probe_socket: PathBuf,
}

impl Agent {
    /// Starts an agent. The flags that every test needs come first, so that a test can override them. Its probe socket
    /// has this name in the folder.
    pub(super) fn spawn(
        name: &str,
        binaries: &Binaries,
        node: &Netns,
        folder: &Path,
        probe_socket: &str,
        tls: &TlsFiles,
        flags: &[String],
    ) -> Result<Self> {
        let probe_socket = folder.join(probe_socket);
        let mut command = node.command(binaries.agent());
        Environment { variables: Vec::new() }.apply(&mut command);
        command.args(super::flags(Self::default_flags(folder, tls), flags));
        command.arg(format!("--probe-socket={}", probe_socket.display()));
        let daemon = Daemon::spawn(name, &mut command, &folder.join(format!("{name}.log")))?;
        Ok(Self { daemon, binary: binaries.agent(), probe_socket })
    }

    /// Returns the flags of a working agent.
    #[must_use]
    pub fn default_flags(folder: &Path, tls: &TlsFiles) -> Vec<String> {
        let TlsFiles { ca, cert, key } = tls;
        vec![
            "--host-interface=cali+".to_owned(),
            format!("--server-address=localhost:{}", super::server::PORT),
            format!("--cert={}", cert.display()),
            format!("--key={}", key.display()),
            format!("--ca={}", ca.display()),
            format!("--port={ADMIN_PORT}"),
            format!("--bpffs={}", folder.join("bpffs").display()),
            format!("--run-dir={}", folder.join("run").display()),
            format!("--state-dir={}", folder.join("state").display()),
            // Only tests of exemptions need the Kubernetes API.
            "--exempt=none".to_owned(),
            "--level=debug".to_owned(),
        ]
    }

    /// Waits until `kiam-agent health` reports that it is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        let ended = eventually("the agent is ready", SOON, || {
            if !self.daemon.is_running()? {
                return Ok(true);
            }
            let output = self.health()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            Ok(false)
        })?;
        ensure!(!ended, "the agent ended\n{}", self.daemon.log_tail());
        Ok(())
    }

    /// Waits until the datapath is complete, with or without a server behind the agent.
    pub fn wait_armed(&mut self) -> Result<()> {
        eventually("the datapath is complete", SOON, || {
            ensure!(self.daemon.is_running()?, "the agent ended\n{}", self.daemon.log());
            let text = String::from_utf8(self.health()?.stdout)?;
            let missing: Vec<&str> =
                text.lines().filter(|line| line.starts_with("FAIL") && !line.contains("server-reached")).collect();
            ensure!(text.contains("ok ") && missing.is_empty(), "{text}");
            Ok(())
        })
    }

    /// Runs `kiam-agent health`, as an exec probe does.
    pub fn health(&self) -> Result<std::process::Output> {
        let mut command = Command::new(&self.binary);
        Environment { variables: Vec::new() }.apply(&mut command);
        process::output(command.arg("health").arg(format!("--probe-socket={}", self.probe_socket.display())))
    }

    /// Returns the path of its probe socket.
    #[must_use]
    pub fn probe_socket(&self) -> &Path {
        &self.probe_socket
    }

    /// Returns whether the parent has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        process::is_alive(self.parent_pid())
    }

    /// Returns the pid of the parent.
    #[must_use]
    pub fn parent_pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Returns the pid of the worker. Fails if there is none, for instance because it has just been killed.
    pub fn worker_pid(&self) -> Result<u32> {
        match process::children(self.parent_pid())?.as_slice() {
            [worker] => Ok(*worker),
            others => bail!("the parent has {} children", others.len()),
        }
    }

    /// Kills the worker alone. The parent starts another one.
    pub fn kill_worker(&self) -> Result<()> {
        process::send_signal(self.worker_pid()?, Signal::SIGKILL)
    }

    /// Waits until another worker than this one runs, and returns its pid.
    pub fn wait_for_worker_after(&self, last: u32) -> Result<u32> {
        eventually("another worker runs", SOON, || {
            let worker = self.worker_pid()?;
            ensure!(worker != last, "it is still the same worker");
            Ok(worker)
        })
    }

    /// Freezes worker and parent with all their threads: from now on neither accepts connections.
    pub fn freeze_both(&self) -> Result<()> {
        process::freeze(self.worker_pid()?)?;
        process::freeze(self.parent_pid())
    }

    /// Kills the worker repeatedly, as a crash at each start would, until the parent has paused for `pause` before it
    /// started the next one; then kills that one too and returns at once. The parent's pauses grow, so no worker runs
    /// for at least `pause` from now.
    pub fn crash_worker_until_paused(&self, pause: Duration) -> Result<()> {
        /// Doubling from 10 ms, a pause of seconds is reached after nine.
        const CRASHES_MAX: u32 = 12;
        let mut worker = self.worker_pid()?;
        for _ in 0..CRASHES_MAX {
            process::send_signal(worker, Signal::SIGKILL)?;
            let killed = Instant::now();
            worker = self.wait_for_worker_after(worker)?;
            if killed.elapsed() >= pause {
                process::send_signal(worker, Signal::SIGKILL)?;
                return wait_gone(worker);
            }
        }
        bail!("after {CRASHES_MAX} crashes the worker is still started again within {pause:?}")
    }

    /// Kills the parent alone; the kernel ends the worker. Returns when both are gone.
    pub fn kill_parent(&mut self) -> Result<()> {
        let worker = self.worker_pid()?;
        self.daemon.end(Signal::SIGKILL)?;
        wait_gone(worker)
    }

    /// Kills both at once. Returns when both are gone.
    pub fn kill_both(&mut self) -> Result<()> {
        // Frozen first, or the parent could start another worker between the two signals.
        self.freeze_parent()?;
        process::send_signal(self.worker_pid()?, Signal::SIGKILL)?;
        self.kill_whatever_runs()
    }

    /// Kills the parent, and everything that it has started by now. Returns when all are gone.
    pub fn kill_whatever_runs(&mut self) -> Result<()> {
        self.freeze_parent()?;
        let workers = process::children(self.parent_pid())?;
        self.daemon.end(Signal::SIGKILL)?;
        workers.into_iter().try_for_each(wait_gone)
    }

    /// Sends SIGTERM, as a kubelet does, and waits for the end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.daemon.end(Signal::SIGTERM)
    }

    /// Resumes worker and parent.
    pub fn thaw_both(&mut self) -> Result<()> {
        process::send_signal(self.worker_pid()?, Signal::SIGCONT)?;
        self.thaw_parent()
    }

    /// Freezes the parent: it repairs nothing, while the worker continues.
    pub fn freeze_parent(&self) -> Result<()> {
        process::freeze(self.parent_pid())
    }

    /// Resumes the parent.
    pub fn thaw_parent(&mut self) -> Result<()> {
        self.daemon.signal(Signal::SIGCONT)
    }

    /// Requests a path of its admin endpoints from the node.
    pub fn admin(&self, node: &Netns, path: &str) -> Result<Answer> {
        node.enter(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", ADMIN_PORT)).context("the agent's --port")?;
            stream.set_read_timeout(Some(SOON))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{text:?}"))?;
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
            Ok(Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() })
        })
    }

    /// Runs `kiam-agent cleanup` on a node; returns its log.
    pub(super) fn clean_up(binaries: &Binaries, node: &Netns, folder: &Path) -> Result<String> {
        let mut command = node.command(binaries.agent());
        Environment { variables: Vec::new() }.apply(&mut command);
        command.arg("cleanup");
        command.arg(format!("--bpffs={}", folder.join("bpffs").display()));
        command.arg(format!("--run-dir={}", folder.join("run").display()));
        command.arg(format!("--state-dir={}", folder.join("state").display()));
        let output = process::output(&mut command)?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "kiam-agent cleanup: {}\n{log}", output.status);
        Ok(log)
    }
}

fn wait_gone(pid: u32) -> Result<()> {
    eventually(&format!("process {pid} is gone"), SOON, || {
        ensure!(!process::is_alive(pid), "it still exists");
        Ok(())
    })
}

//! The node: namespaces and control groups of its own, with a PID 1. When PID 1 ends, every process in it ends.

use super::state::{Cgroups, State};
use crate::{
    eventually::eventually,
    node::{
        process::{self, Daemon},
        topology::{NODE_NAME, Topology},
    },
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Seconds the mounts may take on a loaded machine.
const MOUNT_SECONDS_MAX: u64 = 30;
/// Seconds the kernel may take to end all processes of a node.
const END_SECONDS_MAX: u64 = 30;
/// `PATH` of every process of a node. They inherit nothing else from this process's environment: its proxy and CA
/// settings would confuse the components.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running PID 1.
#[derive(Debug)]
pub(super) struct Node {
    /// `unshare`, the parent of PID 1.
    outer: Daemon,
    /// Pid of PID 1 as seen from outside.
    pid: u32,
    cgroups: Vec<PathBuf>,
    logs: PathBuf,
}

impl Node {
    pub(super) fn start(topology: &Topology, state: &State, cgroups: Cgroups) -> Result<Self> {
        let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cluster/node-init.sh");
        let logs = state.folder().join("daemons");
        std::fs::create_dir(&logs)?;
        let mut command = in_cgroups(state.cgroups());
        command
            // The node ends with a killed test.
            .args(["setpriv", "--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", topology.node.path().display()))
            .args(["unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--cgroup"])
            .args(["--pid", "--fork", "--kill-child"])
            .arg(init)
            .arg(state.folder())
            .args([NODE_NAME, cgroups.name()]);
        let mut outer = Daemon::spawn("node", &mut command, &logs.join("node.log"))?;
        let mounted = state.folder().join("mounted");
        eventually("the node has its mounts", Duration::from_secs(MOUNT_SECONDS_MAX), || {
            ensure!(outer.is_running()?, "it ended\n{}", outer.log_tail());
            ensure!(mounted.exists(), "{}", outer.log_tail());
            Ok(())
        })?;
        let children = process::children(outer.pid())?;
        let pid = *children.first().context("unshare has a child")?;
        Ok(Self { outer, pid, cgroups: state.cgroups().to_vec(), logs })
    }

    /// Returns a command in all namespaces of the node, but in this process's control groups.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--all"]).arg(program).env_clear().env("PATH", PATH);
        command
    }

    /// Starts a daemon in the namespaces and the control groups of the node.
    pub(super) fn daemon(&self, name: &str, arguments: &[&OsStr]) -> Result<Daemon> {
        let mut command = in_cgroups(&self.cgroups);
        command.args(["nsenter", "--target", &self.pid.to_string(), "--all"]).args(arguments);
        command.env("HOME", "/root").env("TMPDIR", "/tmp");
        Daemon::spawn(name, &mut command, &self.logs.join(format!("{name}.log")))
    }

    /// Returns its root folder, as seen from outside.
    pub(super) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// Fails with the log if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        ensure!(self.outer.is_running()?, "the node ended\n{}", self.outer.log_tail());
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // `unshare` ends after PID 1, and PID 1 after every other process of the node.
        let ended = process::send_signal(self.pid, Signal::SIGKILL)
            .and_then(|()| self.outer.wait(Duration::from_secs(END_SECONDS_MAX)));
        if let Err(error) = ended {
            eprintln!("end the node: {error:#}");
        }
    }
}

/// Returns a shell that moves itself into the control groups and then becomes the appended command.
fn in_cgroups(cgroups: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    let script = r#"while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@""#;
    command.env_clear().env("PATH", PATH).args(["-euc", script, "sh"]).args(cgroups).arg("--");
    command
}

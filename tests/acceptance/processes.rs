//! The node's processes, and the privileges of ours.

use crate::stage::Stage;
use anyhow::{Context as _, Result, ensure};
use kiam_tests::cluster::Cluster;
use std::{fs, os::unix::fs::MetadataExt as _};

/// Capability numbers (include/uapi/linux/capability.h).
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// Capabilities of the agent's privileged process.
const PARENT: [u32; 5] = [SETGID, SETUID, NET_ADMIN, PERFMON, BPF];
/// User of the agent's worker and of the server.
const NOBODY: u32 = 65532;
/// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
const FILTERED: &str = "2";

/// A process in the node's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Pid as seen from outside the node.
    pub(crate) pid: u32,
    /// Name, at most 15 characters.
    pub(crate) name: String,
    /// Real user.
    pub(crate) uid: u32,
    status: String,
}

impl Process {
    /// Returns all of them, without those of pods with a network of their own.
    pub(crate) fn all(cluster: &Cluster) -> Result<Vec<Self>> {
        let node = fs::metadata(cluster.topology.node.path())?.ino();
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended already.
            let Ok(lives_in) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            if lives_in.ino() == node {
                all.push(Self::parse(pid, status)?);
            }
        }
        Ok(all)
    }

    fn parse(pid: u32, status: String) -> Result<Self> {
        let process = Self { pid, name: String::new(), uid: 0, status };
        let uid = process.field("Uid").split_whitespace().next().context("a user")?.parse()?;
        Ok(Self { name: process.field("Name").to_owned(), uid, ..process })
    }

    /// Returns a field of `/proc/PID/status`.
    fn field(&self, key: &str) -> &str {
        let value = self.status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    }

    /// Asserts its capabilities, and that it cannot gain others.
    fn expect_capabilities(&self, expected: &[u32]) -> Result<()> {
        let expected = expected.iter().fold(0_u64, |set, capability| set | 1 << capability);
        for key in ["CapPrm", "CapEff"] {
            let has = u64::from_str_radix(self.field(key), 16)?;
            ensure!(has == expected, "{} ({}): {key} is {has:#x}, not {expected:#x}", self.name, self.uid);
        }
        ensure!(self.field("NoNewPrivs") == "1", "{} ({}) can get new privileges", self.name, self.uid);
        ensure!(self.field("Seccomp") == FILTERED, "{} ({}) has no seccomp filter", self.name, self.uid);
        Ok(())
    }
}

/// Returns the agent's privileged process.
pub(crate) fn agent_parent(cluster: &Cluster) -> Result<Process> {
    let all = Process::all(cluster)?;
    let parent = all.into_iter().find(|process| process.name == "kiam-agent" && process.uid == 0);
    parent.context("no kiam-agent runs as root in the node")
}

pub(crate) fn processes_have_only_shipped_privileges(stage: &mut Stage) -> Result<()> {
    let cluster = &stage.deployed()?.cluster;
    agent_parent(cluster)?.expect_capabilities(&PARENT)?;
    for name in ["kiam-agent", "kiam-server"] {
        let all = Process::all(cluster)?;
        let process = all.iter().find(|process| process.name == name && process.uid == NOBODY);
        process.with_context(|| format!("no {name} of user {NOBODY}: {all:?}"))?.expect_capabilities(&[])?;
    }
    Ok(())
}

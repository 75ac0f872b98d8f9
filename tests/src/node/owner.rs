//! Owners: every namespace and folder carries the pid and start time of the process that made it, so that another run
//! can recognise what a killed one left behind and never touches what is in use.

use anyhow::{Context as _, Result};
use std::{
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Prefix of the name of every namespace of the harness.
pub const PREFIX: &str = "kiam-";
/// Folder of the files of all runs, with a folder for each run.
pub const ROOT: &str = "/run/kiam-tests";

/// A process, identified for all time: a pid is reused, a pid with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

impl Owner {
    /// Returns this process.
    pub fn this() -> Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_ticks: start_ticks(pid).context("this process is not in /proc")? })
    }

    /// Returns the owner in a name, if it is a name of ours.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let owner = Self { pid: parts.next()?.parse().ok()?, start_ticks: parts.next()?.parse().ok()? };
        Some(owner)
    }

    /// Returns whether the process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Returns the prefix of the names of this owner's objects.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}-{}", self.pid, self.start_ticks)
    }
}

/// Returns a name that is unique on this machine: `kiam-<pid>-<start>-<number>-<role>`. The first call removes what
/// killed runs left behind.
pub fn unique_name(role: &str) -> Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static OWNER: OnceLock<Owner> = OnceLock::new();
    if OWNER.get().is_none() {
        crate::node::leftovers::reap()?;
        OWNER.get_or_init(|| Owner::this().expect("/proc of this process"));
    }
    let owner = OWNER.get().expect("set above");
    Ok(format!("{}-{}-{role}", owner.prefix(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A folder that is removed when dropped. World-readable, because the agent's worker runs as another user.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new, empty folder below [`ROOT`].
    pub fn create(role: &str) -> Result<Self> {
        let path = PathBuf::from(ROOT).join(unique_name(role)?);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("remove {}: {error}", self.path.display());
        }
        // The folder is empty only after the last of all parallel runs.
        drop(fs::remove_dir(ROOT));
    }
}

/// Returns the start time of a process; `None` if it does not exist or is a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may contain blanks and brackets; the last bracket ends it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    // The state is field 3, the start time field 22.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_owner() {
        let name = unique_name("pod").unwrap();
        let owner = Owner::of_name(&name).unwrap();
        assert_eq!(owner, Owner::this().unwrap());
        assert!(owner.is_alive());
    }

    #[test]
    fn reused_pid_is_another_owner() {
        let later = Owner { start_ticks: Owner::this().unwrap().start_ticks + 1, ..Owner::this().unwrap() };
        assert!(!later.is_alive());
        assert_eq!(Owner::of_name("kiam-x-1-0-pod"), None);
        assert_eq!(Owner::of_name("cni-1-1-0-pod"), None);
    }
}

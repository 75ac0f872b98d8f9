//! Whose things these are: every namespace and folder carries the process that made it, by pid and start time, so that
//! another run can tell what a killed one left behind and never touches what is in use.

use anyhow::{Context as _, Result};
use std::{
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// What every namespace of the harness begins with.
pub const PREFIX: &str = "kiam-";
/// Where each run keeps its files, in a folder named after the run.
pub const ROOT: &str = "/run/kiam-tests";

/// A process for all time: a pid is used again, a pid with its start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// `/proc` is not there or not readable.
    pub fn this() -> Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_ticks: start_ticks(pid).context("this process is not in /proc")? })
    }

    /// The owner that a name begins with, if it is one of ours.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let owner = Self { pid: parts.next()?.parse().ok()?, start_ticks: parts.next()?.parse().ok()? };
        Some(owner)
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// What the names of this owner's things begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}-{}", self.pid, self.start_ticks)
    }
}

/// A name that nothing else on this machine has: `kiam-<pid>-<start>-<number>-<role>`.
///
/// # Errors
/// `/proc` is not readable, or what killed runs left behind cannot be removed.
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

/// A folder that is removed when dropped; world-readable, because the agent's worker runs as another user.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new, empty folder below [`ROOT`].
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create(role: &str) -> Result<Self> {
        let path = PathBuf::from(ROOT).join(unique_name(role)?);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
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
        // Only the last of all runs finds it empty.
        drop(fs::remove_dir(ROOT));
    }
}

/// The start time of a process; `None` when there is none of that pid, or only its corpse.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold blanks and brackets; the last bracket ends it.
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
    fn another_process_of_the_same_pid_is_another_owner() {
        let later = Owner { start_ticks: Owner::this().unwrap().start_ticks + 1, ..Owner::this().unwrap() };
        assert!(!later.is_alive());
        assert_eq!(Owner::of_name("kiam-x-1-0-pod"), None);
        assert_eq!(Owner::of_name("cni-1-1-0-pod"), None);
    }
}

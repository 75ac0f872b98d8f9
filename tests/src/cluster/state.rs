//! A cluster's folder on disk and its control groups; both are removed when dropped, and by the next run when the
//! process was killed.

use crate::{eventually::eventually, owner::Owner, owner::unique_name};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where clusters keep their files: on disk, because images don't fit in memory everywhere, and not below /run, which
/// a node has for itself. Short, because a socket's path has at most 108 bytes.
const ROOT: &str = "/var/tmp/kiam-tests";
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Levels of folders below [`CGROUPS`] that are searched for control groups of dead runs: those of a session.
const CGROUP_DEPTH_MAX: usize = 6;
/// How long the kernel may take to empty a control group after its processes were killed.
const EMPTY_SECONDS_MAX: u64 = 20;

/// How the node's control groups look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Only version 2, as on a current node; no controllers, so no limits.
    V2,
    /// Version 1 controllers and a bare version 2 beside them, where the machine has that.
    Hybrid,
}

impl Cgroups {
    /// The word for node-init.sh.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }

    /// Why this machine cannot do it, if it cannot.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let unified = Path::new(CGROUPS).join("unified/cgroup.procs");
        (self == Self::Hybrid && !unified.exists())
            .then(|| format!("{} is not there: this machine has no version 1 control groups", unified.display()))
    }
}

/// The folder and the control groups of one cluster.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl State {
    /// Makes both, after removing what killed runs left.
    pub(super) fn create() -> Result<Self> {
        let name = unique_name("cluster")?;
        reap()?;
        let folder = Path::new(ROOT).join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut state = Self { folder, cgroups: Vec::new() };
        for parent in own_cgroups()? {
            let cgroup = parent.join(&name);
            fs::create_dir(&cgroup).with_context(|| format!("make {}", cgroup.display()))?;
            inherit_cpuset(&parent, &cgroup)?;
            state.cgroups.push(cgroup);
        }
        Ok(state)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The control groups that the node's processes live in, one a hierarchy.
    pub(super) fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for cgroup in &self.cgroups {
            if let Err(error) = remove_cgroup(cgroup) {
                eprintln!("{error:#}");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("remove {}: {error}", self.folder.display());
        }
        // Only the last of all runs finds it empty.
        drop(fs::remove_dir(ROOT));
    }
}

/// Removes folders and control groups whose owner is dead. Their processes died with it, or were killed by
/// [`crate::leftovers::reap`].
pub(super) fn reap() -> Result<()> {
    for cgroup in dead_below(Path::new(CGROUPS), CGROUP_DEPTH_MAX) {
        remove_cgroup(&cgroup)?;
    }
    for folder in dead_below(Path::new(ROOT), 1) {
        if let Err(error) = fs::remove_dir_all(&folder)
            && folder.exists()
        {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
    }
    // Only the last of all runs finds it empty.
    drop(fs::remove_dir(ROOT));
    Ok(())
}

/// Folders that carry the name of a dead owner, at most `depth` levels below.
fn dead_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut dead = Vec::new();
    // A folder that is gone by now, or that nobody may read, holds nothing of ours.
    let Ok(entries) = fs::read_dir(folder) else { return dead };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match entry.file_name().to_str().and_then(Owner::of_name) {
            Some(owner) if !owner.is_alive() => dead.push(entry.path()),
            Some(_) => {}
            None if depth > 1 => dead.extend(dead_below(&entry.path(), depth - 1)),
            None => {}
        }
    }
    dead
}

/// The control groups of this process, one a mounted hierarchy.
fn own_cgroups() -> Result<Vec<PathBuf>> {
    let lines = fs::read_to_string("/proc/self/cgroup")?;
    let mut own = Vec::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let hierarchy = match controllers {
            "" if Path::new(CGROUPS).join("cgroup.procs").exists() => PathBuf::from(CGROUPS),
            "" => Path::new(CGROUPS).join("unified"),
            named => Path::new(CGROUPS).join(named.trim_start_matches("name=")),
        };
        if hierarchy.join("cgroup.procs").exists() {
            own.push(hierarchy.join(path.trim_start_matches('/')));
        }
    }
    ensure!(!own.is_empty(), "no control groups are mounted below {CGROUPS}");
    Ok(own)
}

/// A new cpuset of version 1 is empty, and takes no process before it is filled.
fn inherit_cpuset(parent: &Path, cgroup: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if parent.starts_with(Path::new(CGROUPS).join("cpuset")) {
            fs::write(cgroup.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Removes a control group with all below it.
fn remove_cgroup(cgroup: &Path) -> Result<()> {
    eventually(&format!("{} is empty", cgroup.display()), Duration::from_secs(EMPTY_SECONDS_MAX), || {
        remove_tree(cgroup).with_context(|| format!("remove {}", cgroup.display()))
    })
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    // The files of a control group are the kernel's: only the folder is removed.
    fs::remove_dir(cgroup)
}

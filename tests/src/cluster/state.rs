//! A cluster's folder on disk and its control groups. Both are removed when dropped, or by the next run if the process
//! was killed.

use crate::node::{cgroups, owner::unique_name};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folder of the clusters' files: on disk, because images may not fit into memory, and not below /run, which a node
/// mounts for itself. Short, because the path of a socket has at most 108 bytes.
const ROOT: &str = "/var/tmp/kiam-tests";

/// Layout of the node's control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Only version 2, as on a current node; without controllers, so without limits.
    V2,
    /// Version 1 controllers and a bare version 2 in addition, on machines that have them.
    Hybrid,
}

impl Cgroups {
    /// Returns the word for node-init.sh.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }

    /// Returns the reason if this machine does not support it.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let unified = Path::new(cgroups::MOUNTS).join("unified/cgroup.procs");
        (self == Self::Hybrid && !unified.exists())
            .then(|| format!("{} is missing: this machine has no version 1 control groups", unified.display()))
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

    /// Returns the control groups of the node's processes, one per hierarchy.
    pub(super) fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for cgroup in &self.cgroups {
            if let Err(error) = cgroups::remove(cgroup) {
                eprintln!("{error:#}");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("remove {}: {error}", self.folder.display());
        }
        // The folder is empty only after the last of all parallel runs.
        drop(fs::remove_dir(ROOT));
    }
}

/// Removes folders and control groups of dead owners. Their processes died with the owner, or were killed by
/// [`crate::node::leftovers::reap`].
pub(super) fn reap() -> Result<()> {
    cgroups::reap()?;
    for folder in cgroups::dead_below(Path::new(ROOT), 1) {
        if let Err(error) = fs::remove_dir_all(&folder)
            && folder.exists()
        {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
    }
    // The folder is empty only after the last of all parallel runs.
    drop(fs::remove_dir(ROOT));
    Ok(())
}

/// Returns the control groups of this process, one per mounted hierarchy.
fn own_cgroups() -> Result<Vec<PathBuf>> {
    let lines = fs::read_to_string("/proc/self/cgroup")?;
    let mut own = Vec::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let hierarchy = match controllers {
            "" if Path::new(cgroups::MOUNTS).join("cgroup.procs").exists() => PathBuf::from(cgroups::MOUNTS),
            "" => Path::new(cgroups::MOUNTS).join("unified"),
            named => Path::new(cgroups::MOUNTS).join(named.trim_start_matches("name=")),
        };
        if hierarchy.join("cgroup.procs").exists() {
            own.push(hierarchy.join(path.trim_start_matches('/')));
        }
    }
    ensure!(!own.is_empty(), "no control groups are mounted below {}", cgroups::MOUNTS);
    Ok(own)
}

/// Copies the parent's cpuset: a new cpuset of version 1 is empty, and accepts no process before it is filled.
fn inherit_cpuset(parent: &Path, cgroup: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if parent.starts_with(Path::new(cgroups::MOUNTS).join("cpuset")) {
            fs::write(cgroup.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

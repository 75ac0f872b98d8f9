//! The kubepods cgroup, below which the kubelet creates a cgroup for each pod. The eBPF programs support cgroups of the
//! version 2 hierarchy only; it may be mounted anywhere, and a hybrid node has it in addition to version 1 hierarchies.

mod pods;

pub(crate) use pods::Pods;

use crate::{attestation::PodUid, config::KubepodsAt};
use anyhow::{Context as _, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Names of the cgroup below the root of the hierarchy: with the kubelet's systemd driver, and with its cgroupfs
/// driver.
const FOLDER_NAMES: [&str; 2] = ["kubepods.slice", "kubepods"];

/// The kubepods cgroup of the version 2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubepods {
    path: PathBuf,
    id: u64,
}

impl Kubepods {
    /// Finds the cgroup. `None`: pods are in version 1 hierarchies, or the kubelet has not run yet.
    pub(crate) fn find(at: &KubepodsAt) -> anyhow::Result<Option<Self>> {
        match at {
            KubepodsAt::Path(path) => Self::at(path),
            KubepodsAt::Auto => {
                let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
                let mut found = Vec::new();
                for path in candidates(&mounts) {
                    found.extend(Self::at(&path)?);
                }
                // There are two after a change of the kubelet's driver; the old tree is empty.
                let in_use = found.iter().position(Self::is_populated);
                Ok(if found.is_empty() { None } else { Some(found.swap_remove(in_use.unwrap_or(0))) })
            }
        }
    }

    fn at(path: &Path) -> anyhow::Result<Option<Self>> {
        let cgroup = match fs::metadata(path) {
            Ok(cgroup) => cgroup,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let kind = statfs(path).with_context(|| format!("reading {}", path.display()))?.filesystem_type();
        if kind != CGROUP2_SUPER_MAGIC {
            bail!("--kubepods-cgroup: {} is not a cgroup of the version 2 hierarchy", path.display());
        }
        Ok(Some(Self { path: path.to_owned(), id: cgroup.ino() }))
    }

    /// Returns whether a process is in the cgroup or below it.
    pub(crate) fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Returns the pods that have a cgroup now, by the id of that cgroup.
    pub(crate) fn pods(&self) -> io::Result<BTreeMap<u64, PodUid>> {
        Ok(pods::read(&self.path)?.into_iter().collect())
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the kernel's id of the cgroup: the inode number of its folder (`kernfs_ino`, include/linux/kernfs.h).
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }
}

/// Returns the possible paths of the cgroup, from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn candidates(mounts: &str) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        if let (Some(point), Some("cgroup2")) = (mount.split(' ').nth(4), kind.split(' ').next()) {
            candidates.extend(FOLDER_NAMES.map(|name| Path::new(point).join(name)));
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the version 2 hierarchy is searched, at whatever mount point.
    #[test]
    fn candidates_are_in_the_v2_hierarchy_only() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw\n";
        let unified = Path::new("/sys/fs/cgroup/unified");
        assert_eq!(candidates(hybrid), [unified.join("kubepods.slice"), unified.join("kubepods")]);
        let pure = "41 31 0:38 /../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let root = Path::new("/sys/fs/cgroup");
        assert_eq!(candidates(pure), [root.join("kubepods.slice"), root.join("kubepods")]);
        assert!(candidates("").is_empty());
    }

    /// A folder that is not a cgroup is an error; a missing one means that there is no kubepods cgroup.
    #[test]
    fn given_path_must_be_a_cgroup_or_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = Kubepods::find(&KubepodsAt::Path(folder.path().to_owned())).unwrap_err();
        assert!(error.to_string().contains("not a cgroup of the version 2 hierarchy"), "{error:#}");
        assert_eq!(Kubepods::find(&KubepodsAt::Path(folder.path().join("kubepods"))).unwrap(), None);
    }
}

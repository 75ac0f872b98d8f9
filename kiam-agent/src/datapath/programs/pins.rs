//! Pins in the bpffs: maps and links that outlive the process.
//!
//! ```text
//! kiam/              locked by each agent that runs (`node_lock`)
//! kiam/kiam_owner    map of the agent that owns the datapath (`owner`)
//! kiam/v1/           maps and links of one layout
//! ```

use crate::files;
use anyhow::{Context as _, bail};
use kiam_common::abi::{LAYOUT, MAP_OWNER, PROG_GUARD, PROG_GUARD_IN, PROG_PROBE_OUT, PROG_TC_INGRESS};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Name of the project's folder in the bpffs.
const FOLDER: &str = "kiam";
/// Name of the backstop's link.
const BACKSTOP: &str = "link_sk_lookup";

/// The TCX links of an interface, by the program behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkOf {
    /// `kiam_tc_ingress`.
    Redirect,
    /// `kiam_guard`.
    Guard,
    /// `kiam_guard_in`.
    GuardIn,
    /// `kiam_probe_out`.
    Probe,
}

impl LinkOf {
    /// All programs that have TCX links.
    pub(crate) const ALL: [Self; 4] = [Self::Redirect, Self::Guard, Self::GuardIn, Self::Probe];

    /// Returns the name of the program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Redirect => PROG_TC_INGRESS,
            Self::Guard => PROG_GUARD,
            Self::GuardIn => PROG_GUARD_IN,
            Self::Probe => PROG_PROBE_OUT,
        }
    }

    /// Returns the prefix of the pins' names. The interface's index follows, because names of interfaces are reused and
    /// indexes are not.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Redirect => "link_tc_",
            Self::Guard => "link_guard_",
            Self::GuardIn => "link_guardin_",
            Self::Probe => "link_probe_",
        }
    }
}

/// The pins of one layout.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    folder: PathBuf,
}

/// Returns the project's folder below a mounted bpffs, whether it exists or not. If there is no bpffs, the error
/// contains the command that mounts one.
pub(crate) fn root(bpffs: &Path) -> anyhow::Result<PathBuf> {
    match statfs(bpffs).map(|stat| stat.filesystem_type()) {
        Ok(BPF_FS_MAGIC) => Ok(bpffs.join(FOLDER)),
        Ok(_) => bail!(
            "--bpffs: {0} is not a bpffs; mount one with `mount -t bpf bpf {0}` (in a pod: mount the host's {0} by \
             hostPath)",
            bpffs.display()
        ),
        Err(error) => bail!("--bpffs: cannot stat {}: {error}", bpffs.display()),
    }
}

/// Returns the path of the pinned map of the owner.
pub(crate) fn owner(root: &Path) -> PathBuf {
    root.join(MAP_OWNER)
}

/// Returns the pins of every layout that exists, including the current one.
pub(crate) fn layouts(root: &Path) -> io::Result<Vec<Pins>> {
    let mut layouts = Vec::new();
    match fs::read_dir(root) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    layouts.push(Pins { folder: entry.path() });
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(layouts)
}

/// Removes the map of the owner, and the project's folder.
pub(crate) fn remove_root(root: &Path) -> anyhow::Result<()> {
    files::remove_if_present(&owner(root))?;
    fs::remove_dir(root).with_context(|| format!("removing {}", root.display()))
}

impl Pins {
    /// Opens the pins of the current layout. Creates the folder, readable only by root, if it is missing.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join(LAYOUT);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the backstop's pinned link.
    pub(crate) fn backstop(&self) -> PathBuf {
        self.folder.join(BACKSTOP)
    }

    /// Returns whether a backstop of this or an earlier agent is pinned.
    pub(crate) fn has_backstop(&self) -> bool {
        self.backstop().exists()
    }

    /// Returns the path of a cgroup hook's pinned link.
    pub(crate) fn hook(&self, program: &str) -> PathBuf {
        self.folder.join(program.replacen("kiam_", "link_", 1))
    }

    /// Returns the path of an interface's pinned TCX link.
    pub(crate) fn link(&self, of: LinkOf, interface: u32) -> PathBuf {
        self.folder.join(format!("{}{interface}", of.prefix()))
    }

    /// Returns the paths of all pins of this layout.
    pub(crate) fn all(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    /// Returns the indexes of all interfaces with a pinned TCX link of this program.
    pub(crate) fn linked_interfaces(&self, of: LinkOf) -> io::Result<Vec<u32>> {
        let mut interfaces = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let index = name.to_str().and_then(|name| name.strip_prefix(of.prefix()));
            interfaces.extend(index.and_then(|index| index.parse::<u32>().ok()));
        }
        Ok(interfaces)
    }

    /// Removes every pin, and the folder. The backstop's link goes first: even after a backstop of another layout is
    /// attached, it would keep choosing its own listener.
    pub(crate) fn remove_all(&self) -> anyhow::Result<()> {
        files::remove_if_present(&self.backstop())?;
        for entry in fs::read_dir(&self.folder)? {
            files::remove_if_present(&entry?.path())?;
        }
        fs::remove_dir(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }
}

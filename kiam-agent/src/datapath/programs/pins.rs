//! What outlives the process: maps and links, pinned in the bpffs.
//!
//! ```text
//! kiam/              locked by every agent that lives (`lock`)
//! kiam/kiam_owner    whose the datapath is (`owner`)
//! kiam/v1/           one layout's maps and links
//! ```

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
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Redirect, Self::Guard, Self::GuardIn, Self::Probe];

    /// The program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Redirect => PROG_TC_INGRESS,
            Self::Guard => PROG_GUARD,
            Self::GuardIn => PROG_GUARD_IN,
            Self::Probe => PROG_PROBE_OUT,
        }
    }

    /// What the pins' names begin with; the interface's index follows: names of interfaces are used again, indexes are
    /// not.
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

/// The project's folder below a mounted bpffs, whether it exists or not.
pub(crate) fn root(bpffs: &Path) -> anyhow::Result<PathBuf> {
    match statfs(bpffs).map(|stat| stat.filesystem_type()) {
        Ok(BPF_FS_MAGIC) => Ok(bpffs.join(FOLDER)),
        Ok(_) => bail!(
            "--bpffs: {0} is not a bpffs; mount one with `mount -t bpf bpf {0}` (in a pod: mount the host's {0} by \
             hostPath)",
            bpffs.display()
        ),
        Err(error) => bail!("--bpffs: cannot look at {}: {error}", bpffs.display()),
    }
}

/// Where the map of the owner is pinned.
pub(crate) fn owner(root: &Path) -> PathBuf {
    root.join(MAP_OWNER)
}

/// The pins of every layout that is there, the present one's among them.
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

/// Removes what stands beside the layouts, and the project's folder.
pub(crate) fn remove_root(root: &Path) -> anyhow::Result<()> {
    let owner = owner(root);
    Pins::remove(&owner).with_context(|| format!("removing {}", owner.display()))?;
    fs::remove_dir(root).with_context(|| format!("removing {}", root.display()))
}

impl Pins {
    /// The present layout's, the folder made when it isn't there, for root alone.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join(LAYOUT);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the backstop's link is pinned.
    pub(crate) fn backstop(&self) -> PathBuf {
        self.folder.join(BACKSTOP)
    }

    /// Whether a backstop of this or an earlier agent is in place.
    pub(crate) fn has_backstop(&self) -> bool {
        self.backstop().exists()
    }

    /// Where the link of a cgroup hook is pinned.
    pub(crate) fn hook(&self, program: &str) -> PathBuf {
        self.folder.join(program.replacen("kiam_", "link_", 1))
    }

    /// Where a TCX link of an interface is pinned.
    pub(crate) fn link(&self, of: LinkOf, interface: u32) -> PathBuf {
        self.folder.join(format!("{}{interface}", of.prefix()))
    }

    /// Everything that is pinned.
    pub(crate) fn all(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    /// The indexes of all interfaces with a pinned TCX link of this program.
    pub(crate) fn linked_interfaces(&self, of: LinkOf) -> io::Result<Vec<u32>> {
        let mut interfaces = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let index = name.to_str().and_then(|name| name.strip_prefix(of.prefix()));
            interfaces.extend(index.and_then(|index| index.parse::<u32>().ok()));
        }
        Ok(interfaces)
    }

    /// Removes a pin; that there is none is fine. The kernel drops what was pinned once nobody holds it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes every pin, and the folder. The backstop's link first: beside one of another layout that is
    /// in place already, it would go on choosing its own listener.
    pub(crate) fn remove_all(&self) -> anyhow::Result<()> {
        let backstop = self.backstop();
        Self::remove(&backstop).with_context(|| format!("removing {}", backstop.display()))?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            Self::remove(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::remove_dir(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }
}

//! What outlives the process: maps and links pinned below `kiam/v1` of the bpffs.

use anyhow::{Context as _, bail};
use kiam_common::abi::LAYOUT;
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
}

impl LinkOf {
    /// What the pins' names begin with; the interface's index follows: names of interfaces are used again, indexes are
    /// not.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Redirect => "link_tc_",
            Self::Guard => "link_guard_",
            Self::GuardIn => "link_guardin_",
        }
    }
}

/// The folder of the pins.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// The folder below a mounted bpffs, made when it isn't there, for root alone.
    ///
    /// # Errors
    /// No bpffs there, with the command that mounts one; or no right to write to it.
    pub(crate) fn open(bpffs: &Path) -> anyhow::Result<Self> {
        let pins = Self::at(bpffs)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&pins.folder)
            .with_context(|| format!("making {}", pins.folder.display()))?;
        Ok(pins)
    }

    /// The folder below a mounted bpffs, whether it exists or not.
    ///
    /// # Errors
    /// No bpffs there, with the command that mounts one.
    pub(crate) fn at(bpffs: &Path) -> anyhow::Result<Self> {
        let kind = statfs(bpffs).map(|stat| stat.filesystem_type());
        match kind {
            Ok(BPF_FS_MAGIC) => Ok(Self { folder: bpffs.join(FOLDER).join(LAYOUT) }),
            Ok(_) => bail!(
                "--bpffs: {0} is not a bpffs; mount one with `mount -t bpf bpf {0}` (in a pod: mount the host's \
                 {0} by hostPath)",
                bpffs.display()
            ),
            Err(error) => bail!("--bpffs: cannot look at {}: {error}", bpffs.display()),
        }
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

    /// Where a TCX link of an interface is pinned.
    pub(crate) fn link(&self, of: LinkOf, interface: u32) -> PathBuf {
        self.folder.join(format!("{}{interface}", of.prefix()))
    }

    /// The indexes of all interfaces with a pinned TCX link of this program.
    ///
    /// # Errors
    /// The folder cannot be read.
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

    /// Removes every pin, the backstop's link last, and the folders.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn remove_all(&self) -> anyhow::Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let backstop = self.backstop();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path != backstop {
                Self::remove(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Self::remove(&backstop).with_context(|| format!("removing {}", backstop.display()))?;
        fs::remove_dir(&self.folder).with_context(|| format!("removing {}", self.folder.display()))?;
        if let Some(parent) = self.folder.parent() {
            // Another layout's folder may stand beside ours: then this one stays.
            match fs::remove_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(error).with_context(|| format!("removing {}", parent.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

//! Location of the binaries under test.

use crate::node::cgroups::MOUNTS;
use anyhow::{Result, bail};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

/// The folder with `kiam-agent` and `kiam-server`.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Finds the folder that `KIAM_BIN_DIR` names, otherwise the folder of, or above, the running executable. The error
    /// names the command that builds the binaries.
    pub fn find() -> Result<Self> {
        let candidates = match env::var_os("KIAM_BIN_DIR") {
            Some(folder) => vec![PathBuf::from(folder)],
            None => env::current_exe()?.ancestors().skip(1).take(2).map(ToOwned::to_owned).collect(),
        };
        let complete = |folder: &PathBuf| ["kiam-agent", "kiam-server"].iter().all(|name| folder.join(name).exists());
        match candidates.iter().find(|folder| complete(folder)) {
            Some(folder) => Ok(Self { folder: folder.clone() }),
            None => bail!(
                "no kiam-agent and kiam-server in {candidates:?}: run `cargo build -p kiam-agent -p kiam-server`, or \
                 name their folder in KIAM_BIN_DIR"
            ),
        }
    }

    /// Returns the same, with an agent that has exactly the capabilities of the shipped manifest, as in its container.
    pub fn with_shipped_capabilities(&self, folder: &Path) -> Result<Self> {
        const SHIPPED: &str = "-all,+bpf,+perfmon,+net_admin,+setuid,+setgid";
        let setpriv = format!("setpriv --bounding-set={SHIPPED} --inh-caps=-all --no-new-privs");
        self.wrapped(&folder.join("least-privilege"), &format!("exec {setpriv} {} \"$@\"", self.agent().display()))
    }

    /// Returns the same, with an agent for which a control group is the root of the version 2 hierarchy, as in a
    /// container.
    pub fn in_cgroup_namespace(&self, folder: &Path, root: &Path) -> Result<Self> {
        let (agent, procs) = (self.agent(), root.join("cgroup.procs"));
        // The kernel refuses a mount on top of itself, which happens on a node with the unified hierarchy.
        let mounts = format!("mount -t tmpfs tmpfs {MOUNTS} && mount -t cgroup2 cgroup2 {MOUNTS}");
        let inside = format!("{mounts} && exec {} \"$@\"", agent.display());
        let script = format!("echo $$ > {}\nexec unshare --cgroup --mount sh -c '{inside}' sh \"$@\"", procs.display());
        self.wrapped(&folder.join("cgroup-namespace"), &script)
    }

    /// Returns the same, with an agent that may lock this much memory.
    pub fn with_locked_memory(&self, folder: &Path, kibibytes: u32) -> Result<Self> {
        let script = format!("ulimit -l {kibibytes}\nexec {} \"$@\"", self.agent().display());
        self.wrapped(&folder.join("locked-memory"), &script)
    }

    /// Returns the same, with a shell script instead of the agent.
    fn wrapped(&self, wrapper: &Path, script: &str) -> Result<Self> {
        fs::create_dir(wrapper)?;
        fs::write(wrapper.join("kiam-agent"), format!("#!/bin/sh -e\n{script}\n"))?;
        fs::set_permissions(wrapper.join("kiam-agent"), fs::Permissions::from_mode(0o755))?;
        symlink(self.server(), wrapper.join("kiam-server"))?;
        Ok(Self { folder: wrapper.to_owned() })
    }

    /// Returns the path of `kiam-agent`.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.folder.join("kiam-agent")
    }

    /// Returns the path of `kiam-server`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.folder.join("kiam-server")
    }
}

//! Removes what a killed run left behind: processes, mounts, folders, control groups and namespaces that carry the name
//! of a dead owner. Nothing else is touched.

use crate::node::{
    cgroups,
    owner::{Owner, ROOT},
    process,
};
use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Folder of the names of `ip netns`.
pub(crate) const NETNS_FOLDER: &str = "/run/netns";

/// Removes everything that belongs to a dead owner.
pub fn reap() -> Result<()> {
    for namespace in dead(Path::new(NETNS_FOLDER))? {
        kill_inhabitants(&namespace)?;
        let name = namespace.file_name().context("a namespace has a name")?;
        // Another run may have removed it at the same time.
        if let Err(error) = process::run(Command::new("ip").args(["netns", "del"]).arg(name))
            && namespace.exists()
        {
            return Err(error);
        }
    }
    cgroups::reap()?;
    for folder in dead(Path::new(ROOT))? {
        unmount_below(&folder)?;
        if let Err(error) = fs::remove_dir_all(&folder)
            && folder.exists()
        {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
    }
    Ok(())
}

/// Lazily unmounts everything below a folder, the last mount first.
pub(crate) fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let below: Vec<PathBuf> = targets.filter(|target| target.starts_with(folder)).collect();
    for target in below.iter().rev() {
        match umount2(target, MntFlags::MNT_DETACH) {
            // Another test may have unmounted it at the same time.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmount {}", target.display())),
        }
    }
    Ok(())
}

/// Returns the entries of a folder that carry the name of a dead owner.
fn dead(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut dead = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().and_then(Owner::of_name).is_some_and(|owner| !owner.is_alive()) {
            dead.push(entry.path());
        }
    }
    Ok(dead)
}

/// Kills the processes in a namespace, found by its inode: only our own can be in a namespace of ours.
fn kill_inhabitants(namespace: &Path) -> Result<()> {
    let Ok(wanted) = fs::metadata(namespace) else { return Ok(()) };
    let here = fs::metadata("/proc/self/ns/net")?;
    anyhow::ensure!(here.ino() != wanted.ino(), "{} is the namespace of this process", namespace.display());
    // A run that was killed before the mount leaves a plain file, whose inode is not that of any namespace.
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(lives_in) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if (lives_in.dev(), lives_in.ino()) == (wanted.dev(), wanted.ino()) {
            // It may have ended already, together with its parent.
            drop(process::send_signal(pid, Signal::SIGKILL));
        }
    }
    Ok(())
}

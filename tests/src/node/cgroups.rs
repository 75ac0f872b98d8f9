//! Control groups: those of pods as a kubelet makes them, in the version 2 hierarchy wherever this machine mounts it,
//! and the removal of all that the harness makes.

use crate::{
    eventually::eventually,
    node::{
        netns::Netns,
        owner::{Owner, unique_name},
        process,
    },
};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Mount point of the control groups.
pub(crate) const MOUNTS: &str = "/sys/fs/cgroup";
/// Levels of folders below [`MOUNTS`] that are searched for control groups of dead runs: a login session has that many.
const DEPTH_MAX: usize = 6;
/// Time the kernel has to empty a control group after its processes were killed.
const EMPTY_SECONDS_MAX: u64 = 20;

/// Driver that names the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>/<container>`
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<container>.scope`
    Systemd,
}

/// A pod's QoS class; the groups of guaranteed pods are one level higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Requests are set.
    Burstable,
    /// No requests and no limits.
    BestEffort,
}

/// Members of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Members {
    /// Whole processes, as on a real node.
    Processes,
    /// Single threads as well: threads of the harness, each a client in a pod. The kernel programs make no difference.
    Threads,
}

/// A node's group of all pods, below a group of its own. Dropping it removes it with everything in it.
#[derive(Debug)]
pub struct Kubepods {
    root: PathBuf,
    path: PathBuf,
    driver: Driver,
    members: Members,
}

impl Kubepods {
    /// Makes an empty one. Fails if this machine has no version 2 hierarchy.
    pub fn create(driver: Driver) -> Result<Self> {
        Self::of(driver, Members::Processes)
    }

    /// Makes an empty one whose groups can contain the harness's own clients ([`Netns::live_in`]). Fails as
    /// [`Self::create`] does, or if this process is not in the hierarchy's root, the only group with processes that
    /// allows groups of threads below it.
    pub fn for_clients(driver: Driver) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        ensure!(own.lines().any(|line| line == "0::/"), "not in the root of the version 2 hierarchy: {own}");
        Self::of(driver, Members::Threads)
    }

    fn of(driver: Driver, members: Members) -> Result<Self> {
        let root = mount()?.join(unique_name("cgroups")?);
        let kubepods = Self { path: root.join(driver.kubepods()), root, driver, members };
        kubepods.make()?;
        Ok(kubepods)
    }

    /// Makes it again, after [`Self::remove`].
    pub fn make(&self) -> Result<()> {
        self.make_group(&self.path)
    }

    /// Makes a group of any name, with its missing parents.
    pub fn make_group(&self, path: &Path) -> Result<()> {
        let mut missing: Vec<&Path> = path.ancestors().take_while(|group| !group.exists()).collect();
        while let Some(group) = missing.pop() {
            fs::create_dir(group).with_context(|| format!("make {}", group.display()))?;
            if self.members == Members::Threads {
                let kind = group.join("cgroup.type");
                fs::write(&kind, "threaded").with_context(|| format!("write {}", kind.display()))?;
            }
        }
        Ok(())
    }

    /// Removes it with all its contents, as resetting a kubelet does.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    /// Returns its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a pod with one container, whose pause process runs on the node's network.
    pub fn add_pod(&self, node: &Netns, uid: &str, qos: Qos) -> Result<PodCgroup> {
        let path = self.path.join(self.driver.pod(uid, qos));
        let container = path.join(self.driver.container());
        self.make_group(&container)?;
        let mut pod = PodCgroup { path, container, pause: None };
        pod.pause = Some(pod.command(node, "sleep").arg("infinity").stdin(Stdio::null()).spawn()?);
        Ok(pod)
    }
}

impl Drop for Kubepods {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            eprintln!("{error:#}");
        }
    }
}

/// The groups of one pod. Dropping it kills the pause process; [`Kubepods`] removes the groups.
#[derive(Debug)]
pub struct PodCgroup {
    path: PathBuf,
    container: PathBuf,
    pause: Option<Child>,
}

impl PodCgroup {
    /// Returns its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder of its container.
    #[must_use]
    pub fn container(&self) -> &Path {
        &self.container
    }

    /// Returns its cgroup id, as the kernel programs see it.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Returns a command for the pod's container, on the network of `netns`: the node's for a hostNetwork pod.
    #[must_use]
    pub fn command(&self, netns: &Netns, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        // The shell moves itself and becomes the program, so no other process is ever moved.
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.container.join("cgroup.procs"));
        command.arg("nsenter").arg(format!("--net={}", netns.path().display())).arg(program);
        command
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        if let Some(pause) = &mut self.pause {
            // It may have ended already.
            drop(pause.kill());
            drop(pause.wait());
        }
    }
}

impl Driver {
    const fn kubepods(self) -> &'static str {
        match self {
            Self::Cgroupfs => "kubepods",
            Self::Systemd => "kubepods.slice",
        }
    }

    fn pod(self, uid: &str, qos: Qos) -> PathBuf {
        let class = match qos {
            Qos::Guaranteed => "",
            Qos::Burstable => "burstable",
            Qos::BestEffort => "besteffort",
        };
        match self {
            Self::Cgroupfs => Path::new(class).join(format!("pod{uid}")),
            Self::Systemd => {
                let uid = uid.replace('-', "_");
                if class.is_empty() {
                    return format!("kubepods-pod{uid}.slice").into();
                }
                format!("kubepods-{class}.slice/kubepods-{class}-pod{uid}.slice").into()
            }
        }
    }

    const fn container(self) -> &'static str {
        match self {
            Self::Cgroupfs => "8f1a6e0c",
            Self::Systemd => "cri-containerd-8f1a6e0c.scope",
        }
    }
}

/// Returns the mount point of the version 2 hierarchy, with or without those of version 1.
fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2")).context("no cgroup2 is mounted")?;
    Ok(found[1].into())
}

/// Removes control groups of dead owners, with the processes in them.
pub(crate) fn reap() -> Result<()> {
    dead_below(Path::new(MOUNTS), DEPTH_MAX).iter().try_for_each(|cgroup| remove(cgroup))
}

/// Returns folders that carry the name of a dead owner, at most `depth` levels below.
pub(crate) fn dead_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut dead = Vec::new();
    // A folder that is gone or unreadable contains nothing of ours.
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

/// Removes a control group with everything below it, and the processes there.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
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
    for pid in members(cgroup)? {
        // It may have ended already.
        drop(process::send_signal(pid, Signal::SIGKILL));
    }
    // The kernel owns the files of a control group: only the folder can be removed.
    fs::remove_dir(cgroup)
}

/// Returns the processes of a group, or its threads in a threaded group, except this process's own, which end by
/// themselves.
fn members(cgroup: &Path) -> io::Result<Vec<u32>> {
    let list = match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
            fs::read_to_string(cgroup.join("cgroup.threads"))
        }
        other => other,
    };
    let ids = list?.lines().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>();
    Ok(ids.into_iter().filter(|id| !Path::new("/proc/self/task").join(id.to_string()).exists()).collect())
}

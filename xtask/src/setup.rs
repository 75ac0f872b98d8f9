//! Installs what a bare Debian 12 lacks: packages, a Python with the AWS clients and moto, the BPF toolchain.

use crate::{apt, ebpf, progress, workspace};
use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs for the namespaces, fakes and clients, each with its package.
const SYSTEM: [(&str, &str); 11] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("curl", "curl"),
    ("bpftool", "bpftool"),
    ("openssl", "openssl"),
    ("cfssl", "golang-cfssl"),
    ("iptables-legacy", "iptables"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("systemd-analyze", "systemd"),
];
/// Further programs for a Kubernetes node.
const CLUSTER: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("busybox", "busybox-static"),
    ("jq", "jq"),
];
/// Further programs for a guest with another kernel: QEMU, and those that go onto its disk or make it.
const VM: [(&str, &str); 5] = [
    (QEMU, "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("kmod", "kmod"),
    ("busybox", "busybox-static"),
    ("setpriv", "util-linux"),
];
/// QEMU for this architecture.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Debian's own Python, from which images for pods can be made.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
/// Python packages, with their versions.
const REQUIREMENTS: &str = "tests/requirements.txt";

/// Installs the tools for the demo and the system tests.
///
/// # Errors
/// A tool cannot be installed; the error has the command.
pub(crate) fn for_system() -> anyhow::Result<()> {
    install(&SYSTEM)?;
    ebpf::run(&ebpf::Args { install: true })?;
    python()
}

/// Installs the tools for the tests on a real cluster.
///
/// # Errors
/// A tool cannot be installed; the error has the command.
pub(crate) fn for_cluster() -> anyhow::Result<()> {
    install(&CLUSTER)?;
    // Root builds Kubernetes into this folder. If root made it, the user's `cargo clean` could not remove it.
    let kube = workspace::target().join("kube");
    fs::create_dir_all(&kube).with_context(|| format!("making {}", kube.display()))
}

/// Installs the tools for the tests on other kernels.
///
/// # Errors
/// A tool cannot be installed; the error has the command.
pub(crate) fn for_vm() -> anyhow::Result<()> {
    install(&SYSTEM)?;
    install(&VM)?;
    ebpf::run(&ebpf::Args { install: true })
}

/// Returns true if a program is installed.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Returns the path of a program: its own if it is absolute, otherwise one in the usual folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/go/bin"];
    // `join` returns an absolute path unchanged.
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn install(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !has(program)).map(|&(_, package)| package).collect();
    if missing.is_empty() { Ok(()) } else { apt::install(&missing) }
}

/// Makes a Python environment with moto, boto3 and the aws CLI, anew whenever their versions change.
fn python() -> anyhow::Result<()> {
    let venv = workspace::root().join("target/venv");
    let wanted =
        fs::read_to_string(workspace::root().join(REQUIREMENTS)).with_context(|| format!("reading {REQUIREMENTS}"))?;
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    if !Path::new(PYTHON).exists() || !Path::new("/usr/share/python-wheels").exists() {
        apt::install(&["python3", "python3-venv"])?;
    }
    progress::step("making a Python environment", Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "-r", REQUIREMENTS]).current_dir(workspace::root());
    progress::step("installing moto, boto3 and the aws CLI", &mut pip)?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

//! Makes the disk of a guest: this machine's programs that the tests start, with their shared libraries; the kernel's
//! modules; the tests and the binaries under test.

use super::kernel::Fetched;
use crate::{
    progress,
    setup::{self, PYTHON},
    workspace,
};
use anyhow::{Context as _, bail, ensure};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs that the tests start; busybox has the rest.
const PROGRAMS: [&str; 16] = [
    "ip", "tc", "ss", "nsenter", "unshare", "setpriv", "bpftool", "sysctl", "nft", "ping", "curl", "find", "kmod",
    SHELL, "busybox", PYTHON,
];
/// The shell. That of busybox would prefer busybox's applets to the programs above.
const SHELL: &str = "dash";
/// Folder of the Python environment for the tests: Debian's Python with its standard library.
const VENV: &str = "usr/lib/venv";
/// Applets of busybox that the guest's init and the tests use.
const APPLETS: [&str; 13] =
    ["cat", "chmod", "env", "kill", "mkdir", "mount", "poweroff", "ps", "sleep", "stat", "stty", "true", "umount"];
/// Files that the C library, curl and rustls read.
const FILES: [(&str, &str); 3] = [
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "hosts: files\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
];
/// Public authorities. The server needs one; to read all of them takes seconds under emulation.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const END_OF_CERTIFICATE: &str = "-----END CERTIFICATE-----\n";
/// The guest's PID 1.
const INIT: &str = "tests/vm/init.sh";
/// Free space in the file system.
const SPARE_BYTES: u64 = 256 * 1024 * 1024;

/// A file in the guest's `/etc`, and the words of the command that it contains.
pub(super) type CommandFile = (&'static str, Vec<String>);

/// Makes the disk of a guest that runs `commands` on this kernel. `binaries` are in its PATH, by their names.
///
/// # Errors
/// A program is missing on this machine, or a file cannot be written.
pub(super) fn make(
    disk: &Path,
    kernel: &Fetched,
    binaries: &[PathBuf],
    commands: &[CommandFile],
) -> anyhow::Result<()> {
    let root = disk.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    lay_out(&root)?;
    let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
    for program in PROGRAMS {
        needed.insert(setup::find(program).with_context(|| format!("{program} is missing on this machine"))?);
    }
    needed.extend(binaries.iter().cloned());
    let mut libraries = install_python(&root)?;
    for program in &needed {
        copy(program, &root.join("usr/bin").join(program.file_name().context("a program has a name")?))?;
        libraries.extend(shared_libraries(program)?);
    }
    for library in libraries {
        copy(&library, &root.join(library.strip_prefix("/")?))?;
    }
    for applet in APPLETS {
        symlink("busybox", root.join("usr/bin").join(applet))?;
    }
    symlink(SHELL, root.join("usr/bin/sh"))?;
    // The kernel starts modprobe when it needs a module.
    symlink("kmod", root.join("usr/bin/modprobe"))?;
    let authorities = fs::read_to_string(CA_BUNDLE).with_context(|| format!("reading {CA_BUNDLE}"))?;
    let first = authorities.split_inclusive(END_OF_CERTIFICATE).next().context("no authority")?;
    fs::write(root.join(CA_BUNDLE.trim_start_matches('/')), first)?;
    copy(&workspace::root().join(INIT), &root.join("init"))?;
    // The tests look for some sources at the path where they were compiled.
    workspace::copy_sources(&root.join(workspace::root().strip_prefix("/")?))?;
    for (file, words) in commands {
        fs::write(root.join("etc").join(file), words.iter().map(|word| format!("{word}\n")).collect::<String>())?;
    }
    install_modules(&root, &kernel.modules)?;
    format(disk, &root)?;
    fs::remove_dir_all(&root).context("removing the copy of the disk's contents")
}

/// Makes the folders: Debian's merged /usr with one folder for all programs, and mount points.
fn lay_out(root: &Path) -> anyhow::Result<()> {
    for folder in ["dev", "etc/ssl/certs", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("making {}", root.display()))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    symlink("bin", root.join("usr/sbin"))?;
    fs::create_dir(root.join("usr/lib64"))?;
    for (path, text) in FILES {
        fs::write(root.join(path), text)?;
    }
    Ok(())
}

/// Copies Python's standard library, and returns the shared libraries that it needs.
fn install_python(root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut query = Command::new(PYTHON);
    query.args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]);
    let stdlib = PathBuf::from(String::from_utf8(query.output().context("starting Python")?.stdout)?.trim());
    copy_folder(&stdlib, &root.join("usr/lib"))?;
    fs::create_dir_all(root.join(VENV).join("bin"))?;
    symlink(PYTHON, root.join(VENV).join("bin/python"))?;
    let mut libraries = BTreeSet::new();
    for entry in fs::read_dir(stdlib.join("lib-dynload"))? {
        libraries.extend(shared_libraries(&entry?.path())?);
    }
    Ok(libraries)
}

/// Returns the paths that `ldd` prints: the dynamic linker and the shared libraries.
fn shared_libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        // A static executable has no libraries.
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(message.contains("not a dynamic executable"), "ldd {}: {message}", program.display());
        return Ok(Vec::new());
    }
    if listing.contains("not found") {
        bail!("a library of {} is missing:\n{listing}", program.display());
    }
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display())).map(drop)
}

fn copy_folder(folder: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into)?;
    let mut copy = Command::new("cp");
    progress::step(&format!("copying {}", folder.display()), copy.arg("--archive").arg(folder).arg(into))
}

/// Copies all modules, since the tests' needs change, and makes the indexes that modprobe reads.
fn install_modules(root: &Path, modules: &Path) -> anyhow::Result<()> {
    copy_folder(modules, &root.join("usr/lib/modules"))?;
    let release = modules.file_name().context("the modules' folder is named for the kernel's release")?;
    let mut depmod = Command::new(setup::find("depmod").context("depmod is missing")?);
    progress::step("indexing modules", depmod.arg("--basedir").arg(root).arg(release))
}

/// Makes a file system with everything below `root`, without mounting it.
fn format(disk: &Path, root: &Path) -> anyhow::Result<()> {
    if disk.exists() {
        fs::remove_file(disk)?;
    }
    let kibibytes = (size(root)? + SPARE_BYTES) / 1024;
    let mut mkfs = Command::new(setup::find("mkfs.ext4").context("mkfs.ext4 is missing")?);
    mkfs.args(["-q", "-F", "-E", "root_owner=0:0", "-d"]).arg(root).arg(disk).arg(kibibytes.to_string());
    progress::step("making the guest's disk", &mut mkfs)
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        total += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

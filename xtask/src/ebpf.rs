//! `cargo xtask build-ebpf`: builds the eBPF programs with the toolchain that is there.

#[path = "../../kiam-agent/ebpf_object.rs"]
mod object;

use crate::{apt, progress, workspace};
use anyhow::{Context as _, bail};
pub(crate) use object::OVERRIDE;
use std::{env, fs, path::Path, process::Command};

/// The linker, and the version that goes with the LLVM of the toolchains below.
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.10.3";
/// Debian's rustc, and the packages that it and a prebuilt `core` for BPF come in.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// The target, and the packages that are built for it: those of this repository.
const TARGET: [&str; 4] = ["--profile", "bpf", "--target", "bpfel-unknown-none"];
const PACKAGES: [&str; 2] = ["kiam-ebpf", "kiam-common"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install what is missing: Debian packages, as root or through sudo, and the linker.
    #[arg(long)]
    pub(crate) install: bool,
}

/// Compilers for BPF.
enum Toolchain {
    /// rustup's nightly with rust-src: `core` is built, too.
    Nightly,
    /// Debian's rustc with its own `core` for BPF.
    Debian,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.install {
        install()?;
    }
    build_in(workspace::root(), &workspace::root().join("target"))
}

/// Builds the object of this workspace, unless there is one of the present sources.
///
/// # Errors
/// There is no toolchain, with the commands that install one; or the programs do not compile.
pub(crate) fn ensure(args: &Args) -> anyhow::Result<()> {
    if let Some(other) = env::var_os(OVERRIDE) {
        progress::say(&format!("{OVERRIDE} is set: the agent embeds {}", other.display()));
        return Ok(());
    }
    if object::is_current(workspace::root())? { Ok(()) } else { run(args) }
}

/// Builds the object of the workspace in `root` with a target folder, and puts it where that workspace's agent looks for
/// it.
///
/// # Errors
/// There is no toolchain, with the commands that install one; or the programs do not compile.
pub(crate) fn build_in(root: &Path, target: &Path) -> anyhow::Result<()> {
    let toolchain = find()?;
    let digest = object::digest(root).context("reading the eBPF sources")?;
    if !object::is_current(root)? {
        forget(&toolchain, root, target)?;
    }
    compile(&toolchain, root, target)?;
    if object::digest(root).context("reading the eBPF sources")? != digest {
        bail!("the eBPF sources have changed during the build: start it again");
    }
    publish(root, target, &digest)
}

/// Returns the toolchain, or an error with everything that is missing and the commands that install it.
fn find() -> anyhow::Result<Toolchain> {
    let linker = has_linker();
    let toolchain = if has_nightly() {
        Some(Toolchain::Nightly)
    } else if has_debian() {
        Some(Toolchain::Debian)
    } else {
        None
    };
    match (toolchain, linker) {
        (Some(toolchain), true) => Ok(toolchain),
        (toolchain, linker) => {
            let mut missing = String::new();
            if toolchain.is_none() {
                missing += &format!(
                    "\n  a compiler for BPF, either of:\n    apt-get install -y --no-install-recommends {}   (Debian 12)\n    \
                     rustup toolchain install nightly --component rust-src",
                    DEBIAN_PACKAGES.join(" ")
                );
            }
            if !linker {
                missing += &format!("\n  the linker:\n    cargo install --locked {LINKER}@{LINKER_VERSION}");
            }
            bail!("cannot build the eBPF programs; missing:{missing}\nor let `cargo xtask build-ebpf --install` do it")
        }
    }
}

fn has_nightly() -> bool {
    let sysroot = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists()
    })
}

fn has_debian() -> bool {
    let libdir =
        Command::new(DEBIAN_RUSTC).args(["--target", "bpfel-unknown-none", "--print", "target-libdir"]).output();
    libdir.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
    })
}

fn has_linker() -> bool {
    let version = Command::new(LINKER).arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(LINKER_VERSION))
}

fn install() -> anyhow::Result<()> {
    if !has_nightly() && !has_debian() {
        apt::install(&DEBIAN_PACKAGES)?;
    }
    if !has_linker() {
        let version = format!("{LINKER}@{LINKER_VERSION}");
        progress::step(
            "installing the BPF linker",
            Command::new("cargo").args(["install", "--locked", "--force", &version]),
        )?;
    }
    Ok(())
}

/// Starts a cargo command with the toolchain.
fn cargo(toolchain: &Toolchain, command: &str, root: &Path, target: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    match toolchain {
        Toolchain::Nightly => drop(cargo.args(["+nightly", command])),
        Toolchain::Debian => drop(cargo.arg(command).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1")),
    }
    cargo.arg("--locked").args(TARGET).arg("--target-dir").arg(target);
    cargo.env_remove("RUSTUP_TOOLCHAIN").current_dir(root);
    cargo
}

/// Removes what cargo built of our packages: it compares times of files, and an older file may have another content.
fn forget(toolchain: &Toolchain, root: &Path, target: &Path) -> anyhow::Result<()> {
    let mut clean = cargo(toolchain, "clean", root, target);
    clean.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    progress::step("removing the eBPF programs of other sources", &mut clean)
}

fn compile(toolchain: &Toolchain, root: &Path, target: &Path) -> anyhow::Result<()> {
    let mut build = cargo(toolchain, "build", root, target);
    build.args(["--package", "kiam-ebpf"]);
    if matches!(toolchain, Toolchain::Nightly) {
        build.args(["-Z", "build-std=core"]);
    }
    // BTF and debug names, for bpftool. The variable replaces what cargo has set for xtask itself.
    build.env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clink-arg=--btf");
    progress::step("building the eBPF programs", &mut build)
}

/// Puts the object and the digest of its sources where the agent's build looks for them. An object with the same content
/// stays as it is, so that the agent is not built again.
fn publish(root: &Path, target: &Path, digest: &str) -> anyhow::Result<()> {
    let built = target.join("bpfel-unknown-none/bpf/kiam-ebpf");
    let (object, digest_file) = (root.join(object::OBJECT), object::digest_file(root));
    let fresh = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    fs::create_dir_all(object.parent().context("the object has no folder")?)?;
    if fs::read(&object).ok().as_deref() != Some(&fresh) {
        // Not current until it is complete.
        fs::write(&digest_file, "").with_context(|| format!("writing {}", digest_file.display()))?;
        fs::write(&object, fresh).with_context(|| format!("writing {}", object.display()))?;
    }
    fs::write(&digest_file, digest).with_context(|| format!("writing {}", digest_file.display()))
}

#[cfg(test)]
mod tests {
    use super::object;
    use std::{fs, path::Path, time::SystemTime};

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for source in object::SOURCES {
            let path = root.path().join(source);
            let is_file = path.extension().is_some();
            let file = if is_file { path } else { path.join("one.rs") };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, source).unwrap();
        }
        fs::create_dir_all(root.path().join(object::OBJECT).parent().unwrap()).unwrap();
        fs::write(root.path().join(object::OBJECT), "programs").unwrap();
        fs::write(object::digest_file(root.path()), object::digest(root.path()).unwrap()).unwrap();
        root
    }

    fn is_current(root: &Path) -> bool {
        object::is_current(root).unwrap()
    }

    #[test]
    fn an_object_of_the_present_sources_is_current() {
        let root = workspace();
        let source = root.path().join("kiam-ebpf/src/one.rs");
        assert!(is_current(root.path()));
        fs::File::options().append(true).open(&source).unwrap().set_modified(SystemTime::now()).unwrap();
        assert!(is_current(root.path()), "touched");

        let text = fs::read(&source).unwrap();
        fs::write(&source, [&text[..], b" "].concat()).unwrap();
        assert!(!is_current(root.path()), "changed");
        fs::write(&source, text).unwrap();
        assert!(is_current(root.path()), "changed back");

        let moved = root.path().join("kiam-ebpf/src/two.rs");
        fs::rename(&source, &moved).unwrap();
        assert!(!is_current(root.path()), "renamed");
        fs::rename(&moved, &source).unwrap();
        fs::write(&moved, "").unwrap();
        assert!(!is_current(root.path()), "a new file");
    }

    #[test]
    fn an_object_without_its_digest_is_not_current() {
        let root = workspace();
        fs::remove_file(object::digest_file(root.path())).unwrap();
        assert!(!is_current(root.path()), "of unknown sources");
        let root = workspace();
        fs::remove_file(root.path().join(object::OBJECT)).unwrap();
        assert!(!is_current(root.path()), "no object");
        let root = workspace();
        fs::write(root.path().join(object::OBJECT), "").unwrap();
        fs::write(object::digest_file(root.path()), "").unwrap();
        assert!(!is_current(root.path()), "an interrupted build");
    }
}

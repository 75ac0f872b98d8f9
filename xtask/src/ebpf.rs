//! `cargo xtask build-ebpf`: the kernel programs, with whichever of the two usable toolchains is there.

use crate::{apt, progress, workspace};
use anyhow::{Context as _, bail};
use std::{fs, path::Path, process::Command};

/// Where `kiam-agent/build.rs` looks for the object, below the workspace.
const OBJECT: &str = "target/ebpf/kiam-ebpf";
/// The linker, and the version that goes with the LLVM of the toolchains below.
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.10.3";
/// A rustc with a prebuilt `core` for BPF, among Debian's packages.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install what is missing: Debian's packages (as root or through sudo) and the linker.
    #[arg(long)]
    pub(crate) install: bool,
}

/// What compiles the programs.
enum Toolchain {
    /// rustup's nightly with rust-src: `core` is built along.
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

/// Builds the object of the workspace in `root` with a target folder, and puts it where that workspace's agent looks for
/// it.
///
/// # Errors
/// What is missing on this machine, or what the compiler says.
pub(crate) fn build_in(root: &Path, target: &Path) -> anyhow::Result<()> {
    let toolchain = find()?;
    compile(&toolchain, root, target)?;
    publish(root, target)
}

/// The toolchain, or everything that is missing, with the commands that install it.
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

fn compile(toolchain: &Toolchain, root: &Path, target: &Path) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    match toolchain {
        Toolchain::Nightly => {
            cargo.args(["+nightly", "build", "-Z", "build-std=core"]);
        }
        Toolchain::Debian => {
            cargo.arg("build").env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
    }
    cargo
        .args(["--locked", "--package", "kiam-ebpf", "--profile", "bpf", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(target)
        // BTF and debug names: what bpftool shows. The variable takes the place of what cargo set for xtask itself.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clink-arg=--btf")
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(root);
    progress::step("building the eBPF programs", &mut cargo)
}

/// Puts the object where the agent's build looks for it, and makes it no older than its sources; an object that is the
/// same and current stays as it is, so that the agent is not built again.
fn publish(root: &Path, target: &Path) -> anyhow::Result<()> {
    let built = target.join("bpfel-unknown-none/bpf/kiam-ebpf");
    let object = root.join(OBJECT);
    let fresh = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let older = object.metadata().and_then(|object| Ok(object.modified()? < built.metadata()?.modified()?));
    if older.unwrap_or(true) || fs::read(&object).ok().as_deref() != Some(&fresh) {
        fs::create_dir_all(object.parent().context("the object has no folder")?)?;
        fs::write(&object, fresh).with_context(|| format!("writing {}", object.display()))?;
    }
    Ok(())
}

//! Running other programs.

use anyhow::{Context as _, bail};
use std::process::Command;

/// Runs a command to its end, its output passed through.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn step(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{what}: cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{what}: {:?} failed ({status})", command.get_program());
    }
    Ok(())
}

/// Installs Debian packages, as root or through sudo.
///
/// # Errors
/// No apt here, no right to use it, or it fails.
pub(crate) fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    let mut update = as_root("apt-get");
    step(update.arg("update").arg("-qq"), "updating the package lists")?;
    let mut install = as_root("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
    step(install.args(packages), "installing Debian packages")
}

/// A command that runs as root: itself when we are, else through sudo.
pub(crate) fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env=PATH,DEBIAN_FRONTEND").arg(program);
        sudo
    }
}

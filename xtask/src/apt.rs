//! Installs Debian packages.

use crate::{progress, root};
use anyhow::ensure;

/// Installs Debian packages, as root or through sudo.
///
/// # Errors
/// This machine has no apt, this user may not use it, or apt fails.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    // Before the spinner starts: it would cover sudo's question for a password.
    ensure!(root::is_possible(), "installing {} needs root, directly or through sudo", packages.join(" "));
    progress::step("updating the package lists", root::command("apt-get").args(["update", "-q"]))?;
    let mut apt = root::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    progress::step(&format!("installing {}", packages.join(" ")), apt.args(packages))
}

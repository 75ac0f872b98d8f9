//! Debian's packages.

use crate::{progress, root};
use anyhow::ensure;

/// Installs Debian packages, as root or through sudo.
///
/// # Errors
/// No apt here, no right to use it, or it fails.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    // Asked here, since a spinner would cover the question for a password.
    ensure!(root::is_possible(), "installing {} needs root, directly or through sudo", packages.join(" "));
    progress::step("updating the package lists", root::command("apt-get").args(["update", "-q"]))?;
    let mut apt = root::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    progress::step(&format!("installing {}", packages.join(" ")), apt.args(packages))
}

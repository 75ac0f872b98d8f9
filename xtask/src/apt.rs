//! Debian's packages.

use crate::{progress, root};

/// Installs Debian packages, as root or through sudo.
///
/// # Errors
/// No apt here, no right to use it, or it fails.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    progress::step("updating the package lists", root::command("apt-get").args(["update", "-q"]))?;
    let mut apt = root::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    progress::step(&format!("installing {}", packages.join(" ")), apt.args(packages))
}

//! Debian's cloud kernels, each fetched once into `target/vm`.

use super::private_apt::PrivateApt;
use crate::{progress, workspace};
use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A kernel that the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Name in `--kernel` and tests/kernels.toml.
    pub(super) name: &'static str,
    /// Debian's suite: a small one, because its package lists are fetched.
    suite: &'static str,
    /// Package that depends on the newest build.
    package: &'static str,
}

/// The kernels, from the oldest that the agent supports to the newest in Debian.
pub(super) const ALL: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye-security", package: "linux-image-cloud-amd64" },
    Kernel { name: "6.1", suite: "bookworm-security", package: "linux-image-cloud-amd64" },
    Kernel { name: "6.12", suite: "bookworm-security", package: "linux-image-6.12-cloud-amd64" },
    Kernel { name: "newest", suite: "trixie-backports", package: "linux-image-cloud-amd64" },
];

/// A kernel on this machine's disk.
pub(super) struct Fetched {
    /// Kernel image for `qemu -kernel`.
    pub(super) image: PathBuf,
    /// Folder of its modules. Its name is the kernel's release.
    pub(super) modules: PathBuf,
}

impl Fetched {
    /// Returns the release, as `uname -r` prints it.
    pub(super) fn release(&self) -> &str {
        self.modules.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Kernel {
    /// Fetches the kernel if its folder does not exist. Delete the folder to get a newer build.
    ///
    /// # Errors
    /// The mirror cannot be reached, or no longer has the package.
    pub(super) fn fetch(self) -> anyhow::Result<Fetched> {
        let folder = self.folder().join("packages");
        if !folder.exists() {
            // Renamed when complete: a folder of this name is never partial.
            let new = self.folder().join("packages.new");
            self.unpack_into(&new)?;
            fs::rename(&new, &folder)?;
        }
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path));
        let modules =
            modules.iter().find_map(|path| only_entry(path)).context("no modules in the kernel's packages")?;
        // In /boot, or, from Linux 7 on, next to the modules.
        let images = [only_named(&folder.join("boot"), "vmlinuz"), only_named(&modules, "vmlinuz")];
        let image = images.into_iter().flatten().next().context("no vmlinuz in the kernel's packages")?;
        Ok(Fetched { image, modules })
    }

    /// Returns the folder of everything that belongs to this kernel.
    pub(super) fn folder(self) -> PathBuf {
        workspace::target().join("vm").join(self.name)
    }

    fn unpack_into(self, folder: &Path) -> anyhow::Result<()> {
        let apt = PrivateApt::new(&self.folder().join("apt"), self.suite)?;
        for package in apt.download(self.package, |name| name != self.package && is_of_a_build(name))? {
            let mut unpack = Command::new("dpkg-deb");
            progress::step("unpacking the kernel", unpack.arg("--extract").arg(package).arg(folder))?;
        }
        Ok(())
    }
}

/// Returns true for a package of one build, with a version in its name; false for one that depends on the newest.
fn is_of_a_build(package: &str) -> bool {
    let mut parts = package.split('-');
    package.contains("-cloud-") && parts.any(|part| part.starts_with(|first: char| first.is_ascii_digit()))
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    only_named(folder, "")
}

fn only_named(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
}

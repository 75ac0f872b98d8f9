//! Downloads packages of other Debian suites, from this machine's mirror. Lists and cache are separate from those of the
//! machine's own apt.

use crate::{progress, workspace};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Keys that every Debian suite is signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt with one suite and a folder of its own.
pub(super) struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// Fetches the package lists of a suite.
    ///
    /// # Errors
    /// This machine's apt has no mirror for the suite, or the mirror cannot be reached.
    pub(super) fn new(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        for needed in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(needed)).with_context(|| format!("making {}", folder.display()))?;
        }
        let mirror = mirror(suite)?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(folder.join("sources.list"), source)?;
        let apt = Self { folder: folder.to_owned() };
        progress::step(
            &format!("fetching the package lists of {suite}"),
            apt.command("apt-get").args(["update", "-q"]),
        )?;
        Ok(apt)
    }

    /// Downloads the wanted ones among the direct and indirect dependencies of a package.
    ///
    /// # Errors
    /// The suite has no wanted package, or a download fails.
    pub(super) fn download(&self, package: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
        let mut query = self.command("apt-cache");
        query.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        let output = query.args(["--no-replaces", "--no-enhances", package]).output().context("starting apt-cache")?;
        let listed = String::from_utf8(output.stdout)?;
        // A name at the beginning of a line is a package; the indented names below are its dependencies.
        let packages: Vec<&str> = listed.lines().filter(|line| is_name(line) && wanted(line)).collect();
        if packages.is_empty() {
            bail!("{package} has no wanted dependency in the lists of {}", self.folder.display());
        }
        let folder = self.folder.join("packages");
        let mut download = self.command("apt-get");
        download.args(["download", "-q"]).args(&packages).current_dir(&folder);
        progress::step(&format!("downloading {}", packages.join(" ")), &mut download)?;
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let here = |path: &str| self.folder.join(path).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", here("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", here("lists")),
            format!("Dir::Cache={}", here("cache")),
            // Without the packages that are installed on this machine.
            "Dir::State::Status=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // apt's own user may have no access to this folder.
            format!("APT::Sandbox::User={}", "root"),
        ] {
            command.args(["-o", &option]);
        }
        command.current_dir(workspace::root());
        command
    }
}

fn is_name(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Returns the mirror from which this machine's apt takes the same kind of suite of its own release.
fn mirror(suite: &str) -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let own = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("no VERSION_CODENAME")?;
    let twin = if suite.ends_with("-security") { format!("{own}-security") } else { own.to_owned() };
    let mut query = Command::new("apt-get");
    query.args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]);
    let output = query.output().context("starting apt-get")?;
    let targets = String::from_utf8(output.stdout)?;
    let wanted = format!("{twin} main ");
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    mirror.map(str::to_owned).with_context(|| format!("the apt of this machine has no source for {twin}"))
}

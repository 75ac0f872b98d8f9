//! Packages of other Debian suites than this machine's, from this machine's own mirror, with lists and cache of their
//! own: the machine's apt does not come to know of them.

use crate::{progress, workspace};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What every suite of Debian's is signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt with one suite and a folder of its own.
pub(super) struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// Fetches the lists of a suite.
    ///
    /// # Errors
    /// This machine's apt has no mirror for it, or that cannot be reached.
    pub(super) fn new(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        for needed in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(folder.join(needed)).with_context(|| format!("making {}", folder.display()))?;
        }
        let mirror = mirror(suite)?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(folder.join("sources.list"), source)?;
        let apt = Self { folder: folder.to_owned() };
        progress::step(&format!("looking into {suite}"), apt.command("apt-get").args(["update", "-q"]))?;
        Ok(apt)
    }

    /// Downloads those that a package depends on, and theirs, as far as they are wanted.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be downloaded.
    pub(super) fn download(&self, package: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
        let mut query = self.command("apt-cache");
        query.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        let output = query.args(["--no-replaces", "--no-enhances", package]).output().context("starting apt-cache")?;
        let listed = String::from_utf8(output.stdout)?;
        // A name at the beginning of a line is a package of this suite; indented ones are what it depends on.
        let packages: Vec<&str> = listed.lines().filter(|line| is_name(line) && wanted(line)).collect();
        if packages.is_empty() {
            bail!("nothing of what is wanted of {package} is in {}", self.folder.display());
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
            // Not what is installed here.
            "Dir::State::Status=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // The user that apt would change to need not have a way into this folder.
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

/// The mirror that this machine's apt takes the same kind of suite of its own release from.
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

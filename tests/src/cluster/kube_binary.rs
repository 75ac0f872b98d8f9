//! The one binary with every Kubernetes component and kubectl, built from the Go module `tests/fixtures/cluster/kube` and kept
//! in the target folder: ten minutes once, nothing afterwards.

use crate::node::{owner, process};
use anyhow::{Context as _, Result, bail, ensure};
use ring::digest::{SHA256, digest};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the binary is made of, in the order in which it is hashed.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
/// Bytes of the hash that are part of the file's name.
const HASH_BYTES: usize = 8;

/// How often a build that goes on is mentioned.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the binary is; builds it first if it isn't there.
///
/// # Errors
/// There is no Go, or the build fails; its output is shown.
pub fn kube_binary(target: &Path) -> Result<PathBuf> {
    let module = module();
    let go = go_version(&module)?;
    let mut content = go.into_bytes();
    for source in SOURCES {
        let path = module.join(source);
        content.extend(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    let hash = digest(&SHA256, &content);
    let hash: String = hash.as_ref().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let folder = target.join("kube");
    let binary = folder.join(format!("kube-{hash}"));
    if !binary.exists() {
        fs::create_dir_all(&folder)?;
        build(&module, &binary)?;
    }
    Ok(binary)
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cluster/kube")
}

/// sudo forgets where Go was unpacked to; its own guide says here.
fn go() -> &'static Path {
    let usual = Path::new("/usr/local/go/bin/go");
    if usual.exists() { usual } else { Path::new("go") }
}

/// The version of the Go that builds the module; Go itself refuses, or fetches another one, when it is too old.
fn go_version(module: &Path) -> Result<String> {
    let version = process::run(Command::new(go()).args(["env", "GOVERSION"]).current_dir(module))
        .context("Go 1.26 or newer is needed in PATH to build Kubernetes (Go 1.21 or newer fetches it by itself)")?;
    Ok(version.trim().to_owned())
}

fn build(module: &Path, binary: &Path) -> Result<()> {
    eprintln!("building Kubernetes from its Go modules; the first build takes about 10 min on 2 cores");
    let version = kubernetes_version(module)?;
    let (Some(major), Some(minor)) = (version.split('.').next(), version.split('.').nth(1)) else {
        bail!("go.mod: not a version: {version}");
    };
    // Without these the components take themselves for a placeholder version.
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
         -X {package}.gitTreeState=clean"
    );
    // Under a name of its own first: a build that is cut short leaves nothing that looks finished.
    let unfinished = binary.with_file_name(owner::unique_name("kube")?);
    let mut command = Command::new(go());
    command
        // Git refuses root in somebody else's clone, and nothing needs to know the commit.
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(module)
        .env("CGO_ENABLED", "0");
    run_with_progress(&mut command).with_context(|| format!("go build in {}", module.display()))?;
    fs::rename(&unfinished, binary).with_context(|| format!("rename to {}", binary.display()))
}

/// Runs a command to its end, and says now and then that it is still at it.
fn run_with_progress(command: &mut Command) -> Result<()> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let mut said = start;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            eprintln!("  building Kubernetes for {} s", start.elapsed().as_secs());
        }
        thread::sleep(LOOK_EVERY);
    };
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The version of Kubernetes that go.mod asks for, without the v.
fn kubernetes_version(module: &Path) -> Result<String> {
    let text = fs::read_to_string(module.join("go.mod"))?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    Ok(version.context("go.mod does not require k8s.io/kubernetes")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        let version = kubernetes_version(&module()).unwrap();
        assert!(version.starts_with("1."), "{version}");
    }
}

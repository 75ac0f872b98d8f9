//! The one binary with every Kubernetes component and kubectl, built from the Go module `tests/fixtures/cluster/kube`
//! and kept in the target folder. The build takes ten minutes once.

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

/// Sources of the binary, in the order in which they are hashed.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
/// Bytes of the hash that are part of the file's name.
const HASH_BYTES: usize = 8;

/// Interval of the messages during a long build.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which the build is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the path of the binary; builds it first if it is missing. Needs Go.
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

/// Returns the Go of the official installation, which is not in sudo's PATH, or the one in PATH.
fn go() -> &'static Path {
    let usual = Path::new("/usr/local/go/bin/go");
    if usual.exists() { usual } else { Path::new("go") }
}

/// Returns the version of the Go that builds the module. A Go that is too old fails, or fetches a newer one.
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
    // Otherwise the components report a placeholder version.
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
         -X {package}.gitTreeState=clean"
    );
    // Under another name first: an interrupted build leaves nothing that looks complete.
    let unfinished = binary.with_file_name(owner::unique_name("kube")?);
    let mut command = Command::new(go());
    command
        // Git refuses root in another user's clone, and the commit is not needed.
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(module)
        .env("CGO_ENABLED", "0");
    run_with_progress(&mut command).with_context(|| format!("go build in {}", module.display()))?;
    fs::rename(&unfinished, binary).with_context(|| format!("rename to {}", binary.display()))
}

/// Runs a command to its end, with a message from time to time.
fn run_with_progress(command: &mut Command) -> Result<()> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn()?;
    let mut reported = start;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if reported.elapsed() > MESSAGE_INTERVAL {
            reported = Instant::now();
            eprintln!("  still building Kubernetes after {} s", start.elapsed().as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    };
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Returns the version of Kubernetes that go.mod requires, without the v.
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

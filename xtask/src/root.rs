//! Commands that need root.

use std::{env, process::Command};

/// What of the caller's environment such a command keeps under sudo.
const KEPT: &str = "--preserve-env=PATH,DEBIAN_FRONTEND,CARGO_TARGET_DIR,KIAM_BIN_DIR,KIAM_PYTHON_VENV,RUST_BACKTRACE,GOPROXY,GOFLAGS,GOSUMDB";

/// Where `tc`, `sysctl` and `bpftool` are; the PATH of Debian's users, which is kept for what they added, lacks these.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A command that runs as root: itself when we are, else through sudo.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(KEPT).arg("--").arg(program);
        sudo
    };
    command.env("PATH", format!("{}:{SBIN}", env::var("PATH").unwrap_or_default()));
    command
}

/// Whether such commands can run here; sudo may ask for a password. Not `sudo -v`: it asks also whom one of several
/// entries, as on cloud images, spares the password.
pub(crate) fn is_possible() -> bool {
    nix::unistd::geteuid().is_root() || Command::new("sudo").arg("true").status().is_ok_and(|status| status.success())
}

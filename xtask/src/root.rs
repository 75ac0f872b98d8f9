//! Runs commands as root.

use std::{env, process::Command};

/// Variables of the caller's environment that sudo keeps.
const KEPT: &str = "--preserve-env=PATH,DEBIAN_FRONTEND,CARGO_TARGET_DIR,KIAM_BIN_DIR,KIAM_PYTHON_VENV,RUST_BACKTRACE,GOPROXY,GOFLAGS,GOSUMDB";

/// Folders of `tc`, `sysctl` and `bpftool`. The caller's PATH is kept for its additions, but a Debian user's lacks these.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Returns a command that runs as root: directly if this process is root, otherwise through sudo.
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

/// Returns true if this user can run commands as root; sudo may ask for a password. `sudo -v` would ask for one even
/// where one of several entries does without, as on cloud images.
pub(crate) fn is_possible() -> bool {
    nix::unistd::geteuid().is_root() || Command::new("sudo").arg("true").status().is_ok_and(|status| status.success())
}

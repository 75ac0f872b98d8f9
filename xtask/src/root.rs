//! Commands that need root.

use std::process::Command;

/// What of the caller's environment such a command keeps under sudo.
const KEPT: &str = "--preserve-env=PATH,DEBIAN_FRONTEND,CARGO_TARGET_DIR,KIAM_BIN_DIR,KIAM_PYTHON_VENV,RUST_BACKTRACE,GOPROXY,GOFLAGS,GOSUMDB";

/// A command that runs as root: itself when we are, else through sudo.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if nix::unistd::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(KEPT).arg("--").arg(program);
        sudo
    }
}

/// Whether such commands can run here.
pub(crate) fn is_possible() -> bool {
    nix::unistd::geteuid().is_root() || Command::new("sudo").arg("-v").status().is_ok_and(|status| status.success())
}

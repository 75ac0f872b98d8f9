//! Paths of the agent's own files.

use crate::args::PathArgs;
use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// Paths of the agent's own files.
pub(super) struct Paths {
    pub(super) run_dir: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) probe_socket: PathBuf,
}

impl TryFrom<PathArgs> for Paths {
    type Error = Problems;

    fn try_from(args: PathArgs) -> Result<Self, Problems> {
        let PathArgs { run_dir, state_dir, probe_socket } = args;
        let mut problems = Problems::default();
        let run_dir = problems.value("--run-dir", &run_dir, flags::absolute_path);
        let state_dir = problems.value("--state-dir", &state_dir, flags::absolute_path);
        let probe = problems.optional("--probe-socket", probe_socket.as_deref(), flags::absolute_path);
        match (run_dir, state_dir, probe) {
            (Some(run_dir), Some(state_dir), Some(probe)) => {
                let probe_socket = probe.unwrap_or_else(|| run_dir.join("probe.sock"));
                Ok(Self { run_dir, state_dir, probe_socket })
            }
            _ => Err(problems),
        }
    }
}

//! How `kiam-agent status` looks, and what it prints.

use super::HealthConfig;
use crate::args::StatusArgs;
use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// Of `kiam-agent status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusConfig {
    /// The agent that is asked.
    pub(crate) agent: HealthConfig,
    /// Where the BPF file system is mounted.
    pub(crate) bpffs: PathBuf,
    /// What is printed.
    pub(crate) output: Output,
}

/// For whom it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl TryFrom<StatusArgs> for StatusConfig {
    type Error = Problems;

    fn try_from(args: StatusArgs) -> Result<Self, Problems> {
        let StatusArgs { agent, bpffs, output } = args;
        let mut problems = Problems::default();
        let agent = problems.section(HealthConfig::try_from(agent));
        let bpffs = problems.value("--bpffs", &bpffs, flags::absolute_path);
        let output = problems.value("--output", &output, |text| match text {
            "table" => Ok(Output::Table),
            "json" => Ok(Output::Json),
            _ => Err("neither table nor json"),
        });
        match (agent, bpffs, output) {
            (Some(agent), Some(bpffs), Some(output)) => Ok(Self { agent, bpffs, output }),
            _ => Err(problems),
        }
    }
}

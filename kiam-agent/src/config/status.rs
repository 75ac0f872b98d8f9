//! Configuration of `kiam-agent status`.

use super::HealthConfig;
use crate::args::StatusArgs;
use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// Configuration of `kiam-agent status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusConfig {
    /// The agent to query.
    pub(crate) agent: HealthConfig,
    /// Mount point of the BPF file system.
    pub(crate) bpffs: PathBuf,
    pub(crate) output: Output,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Tables, for people.
    Table,
    /// JSON, for programs.
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

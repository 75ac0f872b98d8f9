//! The flags of the log.

use super::{Problems, level, switch};
use crate::telemetry::LogFormat;
use clap::Args;

/// The flags of the log, as typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Log JSON instead of text.
    #[arg(long, env = "KIAM_JSON_LOG", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub json_log: String,
    /// Lowest level to log: trace, debug, info, warn or error; or a filter such as info,kube=debug.
    #[arg(long, env = "KIAM_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub level: String,
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// The lowest level, `trace`, `debug`, `info`, `warn` or `error`, or a filter of levels.
    pub level: String,
}

impl TryFrom<LogArgs> for LogConfig {
    type Error = Problems;

    fn try_from(args: LogArgs) -> Result<Self, Problems> {
        let LogArgs { json_log, level: lowest } = args;
        let mut problems = Problems::default();
        let json = problems.value("--json-log", &json_log, switch);
        let level = problems.value("--level", &lowest, level);
        match (json, level) {
            (Some(json), Some(level)) => {
                Ok(Self { format: if json { LogFormat::Json } else { LogFormat::Text }, level })
            }
            _ => Err(problems),
        }
    }
}

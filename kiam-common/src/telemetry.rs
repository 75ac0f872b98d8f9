//! Logs: `tracing` to standard error, as text or JSON lines.

use std::io::{self, IsTerminal as _};
use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Format of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// One line of text, coloured on a terminal only.
    #[default]
    Text,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// Reason why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither the name of one nor a filter.
    #[error("--level={level}: expected trace, debug, info, warn or error, or a filter such as info,kube=debug")]
    Level {
        /// The given level.
        level: String,
        /// Reason.
        #[source]
        source: ParseError,
    },
    /// Logging has already been started in this process.
    #[error("cannot start the log")]
    AlreadyStarted(#[source] TryInitError),
}

/// Prefixes of libraries with verbose debug lines; these libraries stay at `info` unless a filter names them.
const QUIET: [&str; 8] = ["aws", "aya", "h2", "hyper", "kube", "rustls", "tonic", "tower"];

/// Starts logging to standard error. `level`: `debug`, `info`, `warn`, `error`, or a filter of `tracing`
/// (`info,kube=debug`).
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines.with_ansi(io::stderr().is_terminal())),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(TelemetryError::AlreadyStarted)
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let mut directives = QUIET.map(|name| format!("{name}=info")).join(",");
    directives.push(',');
    directives.push_str(level);
    EnvFilter::builder().parse(directives).map_err(|source| TelemetryError::Level { level: level.to_owned(), source })
}

/// Returns the texts of an error and its sources, joined by colons.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        // Some libraries repeat the source in their own text.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for level in ["debug", "info", "warn", "error", "info,kube=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        let error = filter("kube=loud").unwrap_err();
        assert!(error.to_string().contains("--level=kube=loud"), "{error}");
    }

    #[test]
    fn libraries_stay_quiet_unless_they_are_named() {
        assert!(filter("debug").unwrap().to_string().contains("h2=info"));
        assert!(filter("debug,h2=trace").unwrap().to_string().contains("h2=trace"));
    }
}

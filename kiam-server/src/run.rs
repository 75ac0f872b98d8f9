//! From the command line to the exit code: 0 a clean stop, 1 something failed, 64 the command line is wrong.

use crate::{
    app,
    args::{self, Cli, Command},
    config::{Config, HealthConfig, LogConfig},
    core::text::in_one_line,
    health,
};
use anyhow::Context as _;
use kiam_common::{
    flags::{EXIT_USAGE, Problems},
    telemetry,
};
use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command, run } = match args::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Where neither output can be written to, the code alone has to tell.
            drop(error.print());
            return ExitCode::from(args::exit_code(&error));
        }
    };
    let result = match command {
        None => Config::try_from(run).map(serve),
        Some(Command::Health(health)) => HealthConfig::try_from(*health).map(check),
    };
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tell(&in_one_line(&telemetry::chain(error.as_ref())));
            ExitCode::FAILURE
        }
        Err(problems) => usage(&problems),
    }
}

fn usage(problems: &Problems) -> ExitCode {
    for line in problems.to_string().lines() {
        tell(line);
    }
    tell("see kiam-server --help");
    ExitCode::from(EXIT_USAGE)
}

/// Through the log where there is one, so that JSON stays JSON.
fn tell(line: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{line}");
    } else {
        drop(writeln!(io::stderr(), "kiam-server: {line}"));
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    start_log(&config.log)?;
    // Asked for by libraries that don't say which they want; ours do.
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "a TLS provider is installed already");
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "kiam-server");
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        tokio::pin!(stop);
        let bound = tokio::select! {
            bound = app::build(config) => bound?,
            () = &mut stop => return Ok(()),
        };
        bound.run(stop).await
    })
}

fn check(config: HealthConfig) -> anyhow::Result<()> {
    start_log(&config.log)?;
    runtime()?.block_on(health::check(config))
}

fn start_log(log: &LogConfig) -> anyhow::Result<()> {
    Ok(telemetry::init(&log.level, log.format)?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

/// Ends with SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

//! The entry point: command line, log, runtime, exit code (see [`kiam_common::exit`]).

use crate::{
    app,
    args::{self, Cli, Command},
    config::{Config, HealthConfig, LogConfig},
    core::text::in_one_line,
    health,
};
use anyhow::Context as _;
use kiam_common::{
    exit,
    telemetry::{self, chain},
};
use std::{env, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// The program's name, in front of its messages.
const PROGRAM: &str = "kiam-server";

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command, run } = match args::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return exit::unparsed(&error),
    };
    let result = match command {
        None => Config::try_from(run).map(serve),
        Some(Command::Health(health)) => HealthConfig::try_from(*health).map(check),
    };
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Some errors quote a file in several lines; the log gets one.
        Ok(Err(error)) => exit::failed(PROGRAM, &in_one_line(&chain(error.as_ref()))),
        Err(problems) => exit::misused(PROGRAM, &problems),
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    start_log(&config.log)?;
    // For libraries that use the process's default provider; kiam's own code names its provider.
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "a TLS provider has already been installed");
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
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

/// Returns a future that ends with SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

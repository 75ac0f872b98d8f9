//! Runs the subcommand of the command line, and returns the exit code.

use crate::{
    args::{self, Command},
    config::{CleanupConfig, Config, HealthConfig, LogConfig, StatusConfig},
    datapath, exemptions, parent,
    report::Health,
    status, status_socket, worker, worker_protocol,
};
use anyhow::Context as _;
use kiam_common::{
    exit,
    flags::Problems,
    telemetry::{self, chain},
};
use std::{env, io::Write as _, os::fd::AsFd as _, os::unix::net::UnixStream, process::ExitCode};

/// The program's name, in front of its messages.
const PROGRAM: &str = "kiam-agent";

/// Runs the subcommand. Exit codes: 0 for success, 1 for a failure, 64 for a wrong command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match args::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return exit::unparsed(&error),
    };
    let result = match cli.command {
        None => Config::try_from(cli.run).map_err(Failure::Usage).and_then(|config| Ok(run(&config)?)),
        Some(Command::Worker(run)) => {
            Config::try_from(*run).map_err(Failure::Usage).and_then(|config| Ok(run_worker(config)?))
        }
        Some(Command::Cleanup(cleanup)) => {
            CleanupConfig::try_from(*cleanup).map_err(Failure::Usage).and_then(|config| Ok(clean_up(&config)?))
        }
        Some(Command::Health(health)) => {
            HealthConfig::try_from(health).map_err(Failure::Usage).and_then(|config| Ok(print_health(&config)?))
        }
        Some(Command::Status(status)) => {
            StatusConfig::try_from(status).map_err(Failure::Usage).and_then(|config| Ok(status::run(&config)?))
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

enum Failure {
    Usage(Problems),
    Start(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Start(error)
    }
}

impl Failure {
    fn report(&self) -> ExitCode {
        match self {
            Self::Usage(problems) => exit::misused(PROGRAM, problems),
            Self::Start(error) => exit::failed(PROGRAM, &chain(error.as_ref())),
        }
    }
}

fn start_log(log: &LogConfig) -> anyhow::Result<()> {
    Ok(telemetry::init(&log.level, log.format)?)
}

fn run(config: &Config) -> anyhow::Result<ExitCode> {
    start_log(&config.log)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    parent::run(config)?;
    Ok(ExitCode::SUCCESS)
}

fn run_worker(config: Config) -> anyhow::Result<ExitCode> {
    start_log(&config.log)?;
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let handoff = worker_protocol::receive(control).context("`worker` is not for use by hand: the agent starts it")?;
    worker::run(handoff, config)?;
    Ok(ExitCode::SUCCESS)
}

fn clean_up(config: &CleanupConfig) -> anyhow::Result<ExitCode> {
    start_log(&config.log)?;
    let redirect = &config.datapath;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(datapath::cleanup::run(&redirect.bpffs))?;
    parent::remove_token_key(&redirect.run_dir)?;
    parent::remove_upgrade_files(&redirect.run_dir)?;
    exemptions::remove(&redirect.state_dir)?;
    tracing::info!("removed: pods reach the real IMDS again");
    Ok(ExitCode::SUCCESS)
}

fn print_health(config: &HealthConfig) -> anyhow::Result<ExitCode> {
    let health: Health = status_socket::ask(&config.probe_socket, config.timeout)?;
    let mut stdout = std::io::stdout().lock();
    for condition in &health.conditions {
        match &condition.problem {
            None => writeln!(stdout, "ok    {}", condition.name)?,
            Some(problem) => writeln!(stdout, "FAIL  {}: {problem}", condition.name)?,
        }
    }
    Ok(if health.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

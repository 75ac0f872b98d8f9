//! `kiam-agent status`: the report of this node's agent, kiam's objects in the kernel, and problems with how to fix
//! them. It changes nothing.

mod problems;
mod tables;
mod view;

use crate::{
    config::{KubepodsAt, Output, StatusConfig},
    datapath,
    report::{Kernel, Report},
    status_socket,
};
use problems::Problem;
use serde::Serialize;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Version of the JSON. It changes when a field is removed or gets another meaning, not when one is added.
const SCHEMA: u32 = 1;

/// The output of `--output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Status {
    /// [`SCHEMA`].
    schema: u32,
    /// True if an agent answers and all its conditions are met; determines the exit code.
    ok: bool,
    /// The report of the agent; `None` if no agent answers.
    agent: Option<Report>,
    kernel: Kernel,
    /// Problems and notices.
    problems: Vec<Problem>,
}

/// Prints the status. The exit code is 0 if pods are served.
pub(crate) fn run(config: &StatusConfig) -> anyhow::Result<ExitCode> {
    let status = collect(config).map_err(|error| match is_refused(&error) {
        true => error.context("permission denied: only root may look at the status; run the command as root"),
        false => error,
    })?;
    let mut stdout = io::stdout().lock();
    match config.output {
        Output::Json => writeln!(stdout, "{}", serde_json::to_string_pretty(&status)?)?,
        Output::Table => view::print(&status, &mut stdout)?,
    }
    Ok(if status.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn collect(config: &StatusConfig) -> anyhow::Result<Status> {
    let asked = status_socket::ask::<Report>(&config.agent.probe_socket, config.agent.timeout);
    let (agent, absence) = match asked {
        Ok(report) => (Some(report), None),
        Err(error) if is_absence(&error) => (None, Some(format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kernel = runtime.block_on(datapath::inventory(&config.bpffs, &kubepods_of(agent.as_ref())))?;
    let problems = match (&agent, absence) {
        (Some(agent), _) => problems::of_agent(agent),
        (None, absence) => vec![problems::of_absence(&kernel, &absence.unwrap_or_default())],
    };
    Ok(Status { schema: SCHEMA, ok: agent.as_ref().is_some_and(|agent| agent.ready), agent, kernel, problems })
}

/// Returns the kubepods cgroup that the agent uses, or the default.
fn kubepods_of(agent: Option<&Report>) -> KubepodsAt {
    let known = agent.and_then(|agent| agent.datapath.as_ref()?.kubepods.clone());
    known.map_or(KubepodsAt::Auto, KubepodsAt::Path)
}

/// Returns true if nothing listens at the status socket. Other errors do not prove that there is no agent.
fn is_absence(error: &anyhow::Error) -> bool {
    matches!(kind(error), Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

fn is_refused(error: &anyhow::Error) -> bool {
    kind(error) == Some(io::ErrorKind::PermissionDenied)
}

fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
}

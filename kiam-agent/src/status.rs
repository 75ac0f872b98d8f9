//! `kiam-agent status`: what the agent of this node says, what is in the kernel, what is wrong and what to do. It looks,
//! and changes nothing.

mod problems;
mod tables;
mod view;

use crate::{
    config::{KubepodsAt, Output, StatusConfig},
    datapath, parent,
    report::{Kernel, Report},
};
use problems::Problem;
use serde::Serialize;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Of the shape below: a field that is added does not change it, one that goes or means something else does.
const SCHEMA: u32 = 1;

/// What `--output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Status {
    /// [`SCHEMA`].
    schema: u32,
    /// An agent runs, and all that it needs to serve pods holds: the exit code.
    ok: bool,
    /// What the agent says; `None`: none answers.
    agent: Option<Report>,
    /// What is in the kernel.
    kernel: Kernel,
    /// What is wrong, or good to know.
    problems: Vec<Problem>,
}

/// Looks, and prints. The exit code is that of an exec probe: 0 when pods are served.
///
/// # Errors
/// No right to look, or an agent that doesn't answer as it should.
pub(crate) fn run(config: &StatusConfig) -> anyhow::Result<ExitCode> {
    let status = look(config).map_err(|error| match is_refused(&error) {
        true => error.context("only root may look"),
        false => error,
    })?;
    let mut stdout = io::stdout().lock();
    match config.output {
        Output::Json => writeln!(stdout, "{}", serde_json::to_string_pretty(&status)?)?,
        Output::Table => view::print(&status, &mut stdout)?,
    }
    Ok(if status.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(config: &StatusConfig) -> anyhow::Result<Status> {
    let asked = parent::ask::<Report>(&config.agent.probe_socket, config.agent.timeout);
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

/// Where the agent has found pods' cgroups, or where they are as a rule.
fn kubepods_of(agent: Option<&Report>) -> KubepodsAt {
    let known = agent.and_then(|agent| agent.datapath.as_ref()?.kubepods.clone());
    known.map_or(KubepodsAt::Auto, KubepodsAt::Path)
}

/// Nobody listens there; all else that can go wrong is no proof of that.
fn is_absence(error: &anyhow::Error) -> bool {
    matches!(kind(error), Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

fn is_refused(error: &anyhow::Error) -> bool {
    kind(error) == Some(io::ErrorKind::PermissionDenied)
}

fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
}

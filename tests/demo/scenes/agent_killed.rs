//! The most important promise: without an agent there are no credentials, and in particular not the node's.

use super::super::{
    cast::Cast,
    progress::Progress,
    report::{Row, Scene},
    requests::{self, NO_ANSWER, NO_CREDENTIALS, OVER_V6, WHICH_ROLE, WHO_AM_I},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use kiam_tests::{
    clients::{IMDS4, IMDS6},
    eventually::eventually,
    node::netns::Netns,
    system::SOON,
};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Response of the agent before its worker serves.
const NOT_YET: &str = "HTTP 503";
/// Timeout of a request while the agent starts; short, so that the pod sends several.
const IMPATIENCE: Duration = Duration::from_millis(100);

pub(super) fn play(cast: &mut Cast, progress: &Progress) -> Result<Scene> {
    let role = cast.permitted.role.context("the pod has a role")?;
    let mut rows = Vec::new();
    let before = requests::role_name(&cast.permitted.network, IMDS4)?;
    rows.push(Row::exactly("before", WHICH_ROLE, role, before));

    progress.step("killing the agent (SIGKILL)", || kill(cast))?;
    rows.extend(progress.step("requesting credentials while no agent runs", || requests_without_agent(cast))?);

    rows.push(progress.step("starting kiam-agent again, with continuous requests", || restart(cast, role))?);
    let identity = progress.step("requesting credentials again", || requests::who_am_i(cast, &cast.permitted))?;
    rows.push(Row::beginning("restarted", WHO_AM_I, &format!("{role}/"), identity));
    Ok(Scene {
        title: "kill -9 of the agent: no credentials",
        headings: ["when", "request of the permitted pod"],
        text: "The programs and the routing rules that keep the pod from the metadata service stay in place when the \
               agent dies. The permitted pod gets no answer, and does not fall back to the node's role."
            .to_owned(),
        rows,
    })
}

/// Starts the agent while the pod sends request after request: the pod may get its own role and no other.
fn restart(cast: &mut Cast, role: &str) -> Result<Row> {
    let Cast { permitted, system, .. } = cast;
    let is_up = AtomicBool::new(false);
    let (started, answers) = thread::scope(|scope| {
        let requesting = scope.spawn(|| request_until(&is_up, &permitted.network));
        let started = system.start_agent();
        is_up.store(true, Ordering::Relaxed);
        (started, requesting.join())
    });
    started?;
    let answers = answers.map_err(|_panic| anyhow!("the requesting thread panicked"))??;
    let harmless = [NO_ANSWER, NOT_YET, role];
    let others: Vec<_> = answers.iter().filter(|answer| !harmless.contains(&answer.as_str())).collect();
    let got = match others.first() {
        None => {
            format!(
                "its own role in {} of {} requests",
                answers.iter().filter(|answer| *answer == role).count(),
                answers.len()
            )
        }
        Some(other) => (*other).clone(),
    };
    Ok(Row::judged("restarting", WHICH_ROLE, "own role or none", got, others.is_empty() && !answers.is_empty()))
}

/// Returns the pod's results until the agent serves, and one more after that.
fn request_until(is_up: &AtomicBool, pod: &Netns) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    loop {
        let was_up = is_up.load(Ordering::Relaxed);
        answers.push(requests::role_name_within(pod, IMDS4, IMPATIENCE)?);
        if was_up {
            return Ok(answers);
        }
    }
}

/// Kills the parent, which makes the kernel kill the worker, and waits until the last thread of both has ended: only
/// then is the listening socket closed. The supervisor reaps the worker, so that it does not remain a zombie.
fn kill(cast: &mut Cast) -> Result<()> {
    let agent = cast.system.agent()?;
    let worker = agent.worker_pid()?;
    agent.kill_parent()?;
    eventually("the worker is gone", SOON, || {
        ensure!(!Path::new(&format!("/proc/{worker}")).exists(), "process {worker} still exists");
        Ok(())
    })
}

fn requests_without_agent(cast: &Cast) -> Result<Vec<Row>> {
    let pod = &cast.permitted;
    let over_v6 = [WHICH_ROLE, OVER_V6].concat();
    Ok(vec![
        Row::exactly("killed", WHICH_ROLE, NO_ANSWER, requests::role_name(&pod.network, IMDS4)?),
        Row::exactly("killed", &over_v6, NO_ANSWER, requests::role_name(&pod.network, IMDS6)?),
        Row::exactly("killed", WHO_AM_I, NO_CREDENTIALS, requests::who_am_i(cast, pod)?),
    ])
}

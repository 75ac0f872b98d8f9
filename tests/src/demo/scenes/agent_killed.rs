//! The promise that matters most: no agent, no credentials, and above all not those of the node.

use super::super::{
    ask::{self, NO_ANSWER, NO_CREDENTIALS, WHO_AM_I},
    cast::Cast,
    progress::Progress,
    report::{Row, Scene},
};
use crate::clients::{M4, M6};
use anyhow::{Context as _, Result};

/// What is asked for.
const WHAT: &str = "which role do I have?";

pub(super) fn play(cast: &mut Cast, progress: &Progress) -> Result<Scene> {
    let role = cast.permitted.role.context("the pod has a role")?;
    let mut rows = Vec::new();
    let before = ask::role_name(&cast.permitted.network, M4)?;
    rows.push(Row::exactly("before", WHAT, role, before));

    progress.step("killing the agent (SIGKILL)", || cast.system.agent()?.kill_parent())?;
    rows.extend(progress.step("asking while no agent runs", || ask_in_vain(cast))?);

    progress.step("starting kiam-agent again", || cast.system.start_agent())?;
    let identity = progress.step("asking again", || ask::who_am_i(cast, &cast.permitted))?;
    rows.push(Row::beginning("restarted", WHO_AM_I, &format!("assumed-role/{role}/"), identity));
    Ok(Scene {
        title: "kill -9 of the agent: nothing comes out",
        text: "The programs and the routing rules that keep the pod from the metadata service outlive the agent. So \
               the permitted pod waits for somebody to answer, and does not fall back to the node's role.",
        rows,
    })
}

fn ask_in_vain(cast: &Cast) -> Result<Vec<Row>> {
    let pod = &cast.permitted;
    let over_v6 = format!("{WHAT} (IPv6)");
    Ok(vec![
        Row::exactly("killed", WHAT, NO_ANSWER, ask::role_name(&pod.network, M4)?),
        Row::exactly("killed", &over_v6, NO_ANSWER, ask::role_name(&pod.network, M6)?),
        Row::exactly("killed", WHO_AM_I, NO_CREDENTIALS, ask::who_am_i(cast, pod)?),
    ])
}

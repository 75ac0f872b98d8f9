//! The problem: nothing stands between a pod and the node's credentials.

use super::super::{ask, cast::Cast, progress::Progress, report::Row, report::Scene};
use crate::{
    canary::NODE_ROLE,
    clients::{M4, M6},
};
use anyhow::Result;

/// What is asked for: the first thing that every AWS SDK asks.
const WHAT: &str = "which role do I have?";

pub(super) fn play(cast: &Cast, progress: &Progress) -> Result<Scene> {
    let rows = progress.step("asking from each pod, without kiam", || {
        let mut rows = Vec::new();
        for pod in cast.pods() {
            let got = ask::role_name(&pod.network, M4)?;
            rows.push(Row::exactly(pod.name, WHAT, NODE_ROLE, got));
        }
        let over_v6 = format!("{WHAT} (IPv6)");
        rows.push(Row::exactly(cast.permitted.name, &over_v6, NODE_ROLE, ask::role_name(&cast.permitted.network, M6)?));
        Ok(rows)
    })?;
    Ok(Scene {
        title: "Without kiam: every pod is the node",
        text: "Every AWS SDK asks 169.254.169.254, the metadata service of EC2, for credentials. Nothing stands in the \
               way of a pod, so it is given those of the machine that it runs on.",
        rows,
    })
}

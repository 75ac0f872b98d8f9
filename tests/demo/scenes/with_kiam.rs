//! The main point: each pod gets the role of its annotation if its namespace permits it, and otherwise nothing.

use super::super::{
    cast::{Cast, Pod},
    progress::Progress,
    report::{Row, Scene},
    requests::{self, NO_CREDENTIALS, OVER_V6, WHICH_ROLE, WHO_AM_I},
};
use anyhow::{Context as _, Result};
use kiam_tests::{
    clients::{IMDS4, IMDS6},
    fakes::canary::NODE_ROLE,
};

pub(super) fn play(cast: &Cast, progress: &Progress) -> Result<Scene> {
    let mut rows = Vec::new();
    for pod in cast.pods() {
        rows.extend(
            progress.step(&format!("requesting credentials in the pod {}", pod.name), || request_from(cast, pod))?,
        );
    }
    let node = requests::role_name(&cast.system.topology.node, IMDS4)?;
    rows.push(Row::exactly("the node", WHICH_ROLE, NODE_ROLE, node));
    Ok(Scene {
        title: "With kiam: each pod has its own role",
        headings: ["who", "request"],
        text: format!(
            "The eBPF program kiam_tc_ingress on each pod's interface redirects those connections to kiam-agent. It asks \
             kiam-server, which gets credentials from STS for the role that the pod is annotated with, if the \
             annotation of the pod's namespace permits that role.\nThe aws CLI in the pods is unmodified and has no \
             configuration. The table shows the last part of its answer, {}.",
            requests::assumed_role("ROLE/SESSION")
        ),
        rows,
    })
}

fn request_from(cast: &Cast, pod: &Pod) -> Result<Vec<Row>> {
    let identity = requests::who_am_i(cast, pod)?;
    let permitted_role = cast.permitted.role.context("the pod has a role")?;
    let forbidden_role = cast.forbidden.role.context("the pod has a role")?;
    let credentials = |role: &str, imds, expected| -> Result<Row> {
        let over = if imds == IMDS6 { OVER_V6 } else { "" };
        let got = requests::credentials_status(&pod.network, imds, role)?;
        Ok(Row::exactly(pod.name, &format!("{role}'s keys{over}"), expected, got))
    };
    Ok(if pod.name == cast.permitted.name {
        vec![
            Row::beginning(pod.name, WHO_AM_I, &format!("{permitted_role}/"), identity),
            credentials(permitted_role, IMDS6, "HTTP 200")?,
            credentials(forbidden_role, IMDS4, "HTTP 403")?,
        ]
    } else if pod.name == cast.forbidden.name {
        vec![
            Row::exactly(pod.name, WHO_AM_I, NO_CREDENTIALS, identity),
            credentials(forbidden_role, IMDS4, "HTTP 403")?,
        ]
    } else {
        vec![
            Row::exactly(pod.name, WHO_AM_I, NO_CREDENTIALS, identity),
            credentials(permitted_role, IMDS4, "HTTP 404")?,
        ]
    })
}

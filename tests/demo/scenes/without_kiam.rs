//! The problem: nothing keeps a pod from the node's credentials.

use super::super::{
    cast::Cast,
    progress::Progress,
    report::{Row, Scene},
    requests::{self, OVER_V6, WHICH_ROLE},
};
use anyhow::Result;
use kiam_tests::{
    clients::{IMDS4, IMDS6},
    fakes::canary::NODE_ROLE,
};

pub(super) fn play(cast: &Cast, progress: &Progress) -> Result<Scene> {
    let rows = progress.step("requesting the role in each pod, without kiam", || {
        let mut rows = Vec::new();
        for pod in cast.pods() {
            let got = requests::role_name(&pod.network, IMDS4)?;
            rows.push(Row::exactly(pod.name, WHICH_ROLE, NODE_ROLE, got));
        }
        let over_v6 = [WHICH_ROLE, OVER_V6].concat();
        rows.push(Row::exactly(
            cast.permitted.name,
            &over_v6,
            NODE_ROLE,
            requests::role_name(&cast.permitted.network, IMDS6)?,
        ));
        Ok(rows)
    })?;
    Ok(Scene {
        title: "Without kiam: every pod gets the node's role",
        headings: ["pod", "request"],
        text:
            "Every AWS SDK asks 169.254.169.254, the metadata service of EC2, for credentials. Nothing is in the way \
               of a pod, so it gets the credentials of the machine that it runs on."
                .to_owned(),
        rows,
    })
}

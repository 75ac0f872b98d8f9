//! What is wrong on a node, and what to do.

use crate::report::{FenceReport, Kernel, Report};
use serde::Serialize;

/// Something that is wrong, or good to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// Whether pods are served all the same.
    pub(super) severity: Severity,
    /// What it is about: the name of a condition (`fence-ipv4`), of a notice (`foreign-program`), or `agent`.
    pub(super) about: String,
    /// What it is, and what to do.
    pub(super) text: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Pods are not served, or not as they should be.
    Problem,
    /// Pods are served.
    Notice,
}

/// What an agent tells of: what doesn't hold, then what is good to know.
pub(super) fn of_agent(agent: &Report) -> Vec<Problem> {
    let failed = agent.status.conditions.iter().filter_map(|condition| {
        let text = condition.problem.clone()?;
        Some(Problem { severity: Severity::Problem, about: condition.name.clone(), text })
    });
    let notices = agent.status.notices.iter().map(|notice| Problem {
        severity: Severity::Notice,
        about: notice.about.clone(),
        text: notice.text.clone(),
    });
    failed.chain(notices).collect()
}

/// That there is no agent, and what that means for pods, by what is in the kernel.
pub(super) fn of_absence(kernel: &Kernel, absence: &str) -> Problem {
    let open: Vec<&str> =
        kernel.fence.iter().filter(|fence| !fence.stands()).map(|fence| fence.family.as_str()).collect();
    let meaning = if is_empty(kernel) {
        "nothing of kiam's is in the kernel either: pods reach what the network lets them reach, the real metadata \
         service and the node's role perhaps. Start the agent"
            .to_owned()
    } else if open.is_empty() {
        "this node is closed: pods get nothing from the metadata service until an agent runs. Start one, or open the node \
         with `kiam-agent cleanup`"
            .to_owned()
    } else {
        format!(
            "this node is not closed over {}: parts of the fence are missing, and pods may reach the real metadata \
             service and the node's role. Start an agent, which closes the node",
            open.join(" and ")
        )
    };
    Problem { severity: Severity::Problem, about: "agent".to_owned(), text: format!("{absence}; {meaning}") }
}

fn is_empty(kernel: &Kernel) -> bool {
    let nothing = |fence: &FenceReport| fence.rules.is_empty() && fence.verdict.is_none();
    kernel.pins.is_empty() && kernel.attached.is_empty() && kernel.fence.iter().all(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(family: &str, rules: &[u32], verdict: Option<&str>) -> FenceReport {
        let (family, rules, verdict) = (family.to_owned(), rules.to_vec(), verdict.map(str::to_owned));
        FenceReport { family, rules, at_boot: Vec::new(), verdict, ahead: Vec::new() }
    }

    #[test]
    fn absent_agent_reports_whether_node_is_closed() {
        let told = |fences: Vec<FenceReport>, pins: &[&str]| {
            let pins = pins.iter().map(Into::into).collect();
            of_absence(&Kernel { fence: fences, pins, ..Kernel::default() }, "none").text
        };
        let whole = |family: &str| fence(family, &[5, 6, 7], Some("blackhole"));
        assert!(told(vec![whole("IPv4"), whole("IPv6")], &[]).contains("this node is closed"));
        let gap = told(vec![whole("IPv4"), fence("IPv6", &[5, 7], Some("local"))], &[]);
        assert!(gap.contains("not closed over IPv6:"), "{gap}");
        let gap = told(vec![fence("IPv4", &[5, 6, 7], None), whole("IPv6")], &[]);
        assert!(gap.contains("not closed over IPv4:"), "{gap}");
        let none = [fence("IPv4", &[], None), fence("IPv6", &[], None)];
        assert!(told(none.to_vec(), &[]).contains("nothing of kiam's is in the kernel"));
        assert!(told(none.to_vec(), &["/sys/fs/bpf/kiam/v1/kiam_ports"]).contains("not closed over IPv4 and IPv6"));
    }
}

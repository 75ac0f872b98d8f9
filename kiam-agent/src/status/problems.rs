//! Problems and notices of a node, with what to do.

use crate::report::{FenceReport, Kernel, Report};
use serde::Serialize;

/// A problem or a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    pub(super) severity: Severity,
    /// The subject: the name of a condition (`fence-ipv4`) or of a notice (`foreign-program`), or `agent`.
    pub(super) about: String,
    /// A description, and what to do.
    pub(super) text: String,
}

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Pods may not be served, or not correctly.
    Problem,
    /// Pods are served.
    Notice,
}

/// Returns the conditions that an agent reports as not met, then its notices.
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

/// Returns the problem that there is no agent, and what that means for pods, given kiam's objects in the kernel.
pub(super) fn of_absence(kernel: &Kernel, absence: &str) -> Problem {
    let open: Vec<&str> =
        kernel.fence.iter().filter(|fence| !fence.stands()).map(|fence| fence.family.as_str()).collect();
    let meaning = if is_empty(kernel) {
        "nothing of kiam's is in the kernel, so pods may reach the real metadata service and the node role. Start an \
         agent, which closes the node"
            .to_owned()
    } else if open.is_empty() {
        "this node is closed: pods get no answer from the metadata service until an agent runs. Start one, or open \
         the node with `kiam-agent cleanup`"
            .to_owned()
    } else {
        format!(
            "this node is not closed over {}: parts of the fence are missing, so pods may reach the real metadata \
             service and the node role. Start an agent, which closes the node",
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
        let text = |fences: Vec<FenceReport>, pins: &[&str]| {
            let pins = pins.iter().map(Into::into).collect();
            of_absence(&Kernel { fence: fences, pins, ..Kernel::default() }, "none").text
        };
        let whole = |family: &str| fence(family, &[5, 6, 7], Some("blackhole"));
        assert!(text(vec![whole("IPv4"), whole("IPv6")], &[]).contains("this node is closed"));
        let gap = text(vec![whole("IPv4"), fence("IPv6", &[5, 7], Some("local"))], &[]);
        assert!(gap.contains("not closed over IPv6:"), "{gap}");
        let gap = text(vec![fence("IPv4", &[5, 6, 7], None), whole("IPv6")], &[]);
        assert!(gap.contains("not closed over IPv4:"), "{gap}");
        let none = [fence("IPv4", &[], None), fence("IPv6", &[], None)];
        assert!(text(none.to_vec(), &[]).contains("nothing of kiam's is in the kernel"));
        assert!(text(none.to_vec(), &["/sys/fs/bpf/kiam/v1/kiam_ports"]).contains("not closed over IPv4 and IPv6"));
    }
}

//! The commands that the reader can paste. `$D` is the folder of the demo's files.

use super::{DEAD, PID_FILE};
use crate::cast::NAMESPACE;
use kiam_common::abi;
use kiam_tests::system::ADMIN_PORT;
use std::path::Path;

/// Commands with the same purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Their purpose.
    pub(crate) title: String,
    /// The commands.
    pub(crate) commands: Vec<String>,
}

impl Part {
    fn new(title: &str, commands: &[&str]) -> Self {
        Self { title: title.to_owned(), commands: commands.iter().map(|&command| command.to_owned()).collect() }
    }
}

/// Returns all of them, in a sensible order.
pub(super) fn parts(folder: &Path, agent: &Path) -> Vec<Part> {
    let mut parts = vec![Part::new("first, once in that terminal", &[&format!("D={}", folder.display())])];
    parts.extend(in_pods());
    parts.extend(on_the_node(agent));
    parts
}

fn in_pods() -> [Part; 3] {
    let namespace = format!("http://127.0.0.1:6443/api/v1/namespaces/{NAMESPACE}");
    [
        Part::new(
            "open a shell in a pod (permitted, forbidden or no-role) and request credentials",
            &[
                "nsenter --net=$D/net/permitted bash --rcfile $D/permitted.bashrc",
                "aws sts get-caller-identity",
                "curl http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            ],
        ),
        Part::new(
            "annotate the forbidden pod with a role that its namespace permits, and try again",
            &[
                &annotate(&format!("{namespace}/pods/forbidden"), "role", "payments-writer"),
                "nsenter --net=$D/net/forbidden sh $D/aws sts get-caller-identity",
            ],
        ),
        Part::new("or let the namespace permit every role", &[&annotate(&namespace, "permitted", ".*")]),
    ]
}

/// Returns the equivalent of `kubectl annotate --overwrite`.
fn annotate(object: &str, annotation: &str, value: &str) -> String {
    format!(
        "nsenter --net=$D/net/node curl -s -o /dev/null -X PATCH \\\n      \
         -H 'content-type: application/merge-patch+json' \\\n      \
         -d '{{\"metadata\":{{\"annotations\":{{\"iam.amazonaws.com/{annotation}\":\"{value}\"}}}}}}' \\\n      {object}"
    )
}

/// Names of reasons per line.
const REASONS_A_LINE: usize = 7;

fn on_the_node(agent: &Path) -> [Part; 3] {
    let pins = format!("$D/bpffs/kiam/{}", abi::LAYOUT);
    let reasons = abi::Reason::ALL.map(abi::Reason::name);
    let reasons: Vec<String> = reasons.chunks(REASONS_A_LINE).map(|names| names.join(", ")).collect();
    [
        Part::new(
            "health, metrics, logs",
            &[
                &format!("{} health --run-dir=$D/run", agent.display()),
                &format!("nsenter --net=$D/net/node curl -s http://127.0.0.1:{ADMIN_PORT}/metrics"),
                "tail -f $D/agent.log $D/server.log",
            ],
        ),
        Part::new(
            &format!(
                "the programs; their packets, by interface and by reason:\n  {};\n  and the routing rules behind them",
                reasons.join(",\n  ")
            ),
            &[
                &format!("bpftool prog show name {}", abi::PROG_TC_INGRESS),
                &format!("bpftool prog show name {}", abi::PROG_SK_LOOKUP),
                &format!("bpftool map dump pinned {pins}/{}", abi::MAP_INTERFACES),
                "nsenter --net=$D/net/node sh -c 'ip rule; ip route show table 4242'",
            ],
        ),
        Part::new(
            &format!(
                "kill the agent and try again in a pod: no credentials until it is started again after {} s",
                DEAD.as_secs()
            ),
            &[&format!("kill -9 $(cat $D/{PID_FILE})")],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_hundred_columns() {
        let folder = Path::new("/run/kiam-tests/kiam-4194304-99999999-99-system");
        let lines = parts(folder, Path::new("/kiam-agent"));
        let lines = lines.iter().flat_map(|part| part.commands.iter().chain([&part.title]));
        // The screen indents them by four.
        for line in lines.flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 96, "{line}");
        }
    }
}

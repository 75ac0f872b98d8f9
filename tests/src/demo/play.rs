//! What the reader can do while the demo stays up: commands to paste, and the few files that keep them short.

use super::cast::{Cast, NAMESPACE};
use crate::{clients::Environment, system::ADMIN_PORT};
use anyhow::{Context as _, Result};
use kiam_common::abi;
use std::{fs, os::unix::fs::symlink, path::Path};

/// Commands of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// What they are for.
    pub(super) title: &'static str,
    /// The commands, each a line.
    pub(super) commands: Vec<String>,
}

/// Puts the files in place and says what to do with them.
pub(super) fn open(cast: &mut Cast) -> Result<Vec<Part>> {
    let folder = cast.system.folder();
    let namespaces = folder.join("net");
    fs::create_dir(&namespaces)?;
    symlink(cast.system.topology.node.path(), namespaces.join("node"))?;
    for pod in cast.pods() {
        symlink(pod.network.path(), namespaces.join(pod.name))?;
        let prompt = format!(
            "PS1='\\[\\e[36m\\]pod {}\\[\\e[0m\\] # '\naws() {{ sh {}/aws \"$@\"; }}\n",
            pod.name,
            folder.display()
        );
        fs::write(folder.join(format!("{}.bashrc", pod.name)), prompt)?;
    }
    let script = aws_script(&cast.system.environment(), &cast.system.python.interpreter());
    fs::write(folder.join("aws"), script).context("write the aws CLI's environment")?;
    Ok(guide(&folder, cast.system.agent()?.parent_pid(), &cast.system.binaries.agent()))
}

/// The aws CLI with nothing but what a pod's image would set: whatever this shell is configured for stays outside.
fn aws_script(environment: &Environment, python: &Path) -> String {
    let mut script = String::from("exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent");
    for (name, value) in &environment.variables {
        script.push_str(&format!(" {name}={value}"));
    }
    script + &format!(" {} -m awscli \"$@\"\n", python.display())
}

fn guide(folder: &Path, agent: u32, binary: &Path) -> Vec<Part> {
    let part =
        |title, commands: &[&str]| Part { title, commands: commands.iter().map(|&line| line.to_owned()).collect() };
    let pods = format!("http://127.0.0.1:6443/api/v1/namespaces/{NAMESPACE}");
    let annotate = |object: &str, annotation: &str, value: &str| {
        format!(
            "nsenter --net=$D/net/node curl -sX PATCH -H 'content-type: application/merge-patch+json' -o /dev/null \\\n      \
             -d '{{\"metadata\":{{\"annotations\":{{\"iam.amazonaws.com/{annotation}\":\"{value}\"}}}}}}' \\\n      {object}"
        )
    };
    vec![
        part("first, once in that terminal", &[&format!("D={}", folder.display())]),
        part(
            "be a pod (permitted, forbidden or no-role), and ask in it",
            &[
                "nsenter --net=$D/net/permitted bash --rcfile $D/permitted.bashrc",
                "aws sts get-caller-identity",
                "curl http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            ],
        ),
        part(
            "give the forbidden pod a role that its namespace permits, and ask again",
            &[
                &annotate(&format!("{pods}/pods/forbidden"), "role", "payments-writer"),
                "nsenter --net=$D/net/forbidden sh $D/aws sts get-caller-identity",
            ],
        ),
        part("or permit everything in the namespace", &[&annotate(&pods, "permitted", ".*")]),
        part(
            "health, metrics, logs",
            &[
                &format!("{} health --run-dir=$D/run", binary.display()),
                &format!("nsenter --net=$D/net/node curl -s http://127.0.0.1:{ADMIN_PORT}/metrics"),
                "tail -f $D/agent.log $D/server.log",
            ],
        ),
        part(
            "the eBPF programs, what they counted, and the routing rules behind them",
            &[
                &format!("bpftool prog show name {}", abi::PROG_TC_INGRESS),
                &format!("bpftool prog show name {}", abi::PROG_SK_LOOKUP),
                &format!("bpftool map dump pinned $D/bpffs/kiam/{}/{}", abi::LAYOUT, abi::MAP_INTERFACES),
                "nsenter --net=$D/net/node sh -c 'ip rule; ip route show table 4242'",
            ],
        ),
        part("kill the agent and ask again: nothing comes out", &[&format!("kill -9 {agent}")]),
    ]
}

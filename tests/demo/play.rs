//! What the reader can do while the demo stays up: commands to paste, and the few files that keep them short.

mod guide;

pub(super) use guide::Part;

use super::{cast::Cast, progress::Progress, screen};
use anyhow::{Context as _, Result};
use kiam_tests::{clients::Environment, node::process};
use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

/// How long an agent that the reader killed stays dead: time enough to ask in a pod.
const DEAD: Duration = Duration::from_secs(30);
/// How often the agent is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Holds the pid of the agent, for `kill`.
const PID_FILE: &str = "agent.pid";

/// Puts the files in place and says what to do with them.
pub(super) fn open(cast: &mut Cast) -> Result<Vec<Part>> {
    let folder = cast.system.folder();
    let namespaces = folder.join("net");
    fs::create_dir(&namespaces)?;
    symlink(cast.system.topology.node.path(), namespaces.join("node"))?;
    for pod in cast.pods() {
        symlink(pod.network.path(), namespaces.join(pod.name))?;
        fs::write(folder.join(format!("{}.bashrc", pod.name)), bashrc(pod.name, &folder))?;
    }
    let script = aws_script(&cast.system.environment(), &cast.system.python.interpreter());
    fs::write(folder.join("aws"), script).context("write the aws CLI's environment")?;
    write_pid(cast)?;
    Ok(guide::parts(&folder, &cast.system.binaries.agent()))
}

/// Waits for the wish to end. An agent that is killed meanwhile is started again, but not at once.
pub(super) fn keep_up(cast: &mut Cast, progress: &Progress) -> Result<()> {
    while !progress.wait_for_end(LOOK) {
        let agent = cast.system.agent()?.parent_pid();
        if process::children(std::process::id())?.contains(&agent) {
            continue;
        }
        screen::note(&format!("the agent has ended: ask in a pod now; it is started again in {} s", DEAD.as_secs()));
        if progress.wait_for_end(DEAD) {
            break;
        }
        progress.step("starting kiam-agent again", || cast.system.start_agent())?;
        write_pid(cast)?;
    }
    Ok(())
}

fn write_pid(cast: &mut Cast) -> Result<()> {
    let pid = cast.system.agent()?.parent_pid();
    Ok(fs::write(cast.system.folder().join(PID_FILE), format!("{pid}\n"))?)
}

/// Of a shell in a pod: its prompt, and `aws`.
fn bashrc(pod: &str, folder: &Path) -> String {
    format!("PS1='\\[\\e[36m\\]pod {pod}\\[\\e[0m\\] # '\naws() {{ sh {}/aws \"$@\"; }}\n", folder.display())
}

/// The aws CLI with nothing but what a pod's image would set: whatever this shell is configured for stays outside.
fn aws_script(environment: &Environment, python: &Path) -> String {
    let mut script = String::from("exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent");
    for (name, value) in &environment.variables {
        script.push_str(&format!(" {name}={value}"));
    }
    script + &format!(" {} -m awscli \"$@\"\n", python.display())
}

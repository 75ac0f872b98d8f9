//! What the reader can do while the demo stays up: commands to paste, and the files that keep them short.

mod guide;

pub(super) use guide::Part;

use super::{cast::Cast, progress::Progress, screen};
use anyhow::{Context as _, Result};
use kiam_tests::{clients::Environment, node::process};
use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

/// Time until a killed agent is started again, long enough for requests from a pod.
const DEAD: Duration = Duration::from_secs(30);
/// Interval at which the agent is checked.
const LOOK: Duration = Duration::from_millis(500);
/// File with the pid of the agent, for `kill`.
const PID_FILE: &str = "agent.pid";

/// Writes the files and returns the commands that use them.
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

/// Waits for the request to end. Starts a killed agent again, after a while.
pub(super) fn keep_up(cast: &mut Cast, progress: &Progress) -> Result<()> {
    while !progress.wait_for_end(LOOK) {
        let agent = cast.system.agent()?.parent_pid();
        if process::children(std::process::id())?.contains(&agent) {
            continue;
        }
        screen::note(&format!(
            "the agent has ended; it is started again in {} s. Try a request from a pod now",
            DEAD.as_secs()
        ));
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

/// Returns the settings of a shell in a pod: its prompt, and `aws`.
fn bashrc(pod: &str, folder: &Path) -> String {
    format!("PS1='\\[\\e[36m\\]pod {pod}\\[\\e[0m\\] # '\naws() {{ sh {}/aws \"$@\"; }}\n", folder.display())
}

/// Returns a script that runs the aws CLI with the environment of a pod's image, without this shell's own
/// configuration.
fn aws_script(environment: &Environment, python: &Path) -> String {
    let mut script = String::from("exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent");
    for (name, value) in &environment.variables {
        script.push_str(&format!(" {name}={value}"));
    }
    script + &format!(" {} -m awscli \"$@\"\n", python.display())
}

//! Blocks of a page with commands and their output:
//!
//! ````text
//! ```console
//! # bpftool prog show name kiam_guard
//! 12: sched_cls  name kiam_guard …
//! ```
//! ````

use anyhow::{Context as _, Result};
use kiam_tests::{node::process, system::System};
use serde_json::Value;
use std::path::Path;

const OPEN: &str = "```console";
const CLOSE: &str = "```";
/// Prompt of root.
const PROMPT: &str = "# ";
/// Paths in the page.
const BPFFS: &str = "/sys/fs/bpf";
const KUBEPODS: &str = "/sys/fs/cgroup/kubepods";

/// Runs commands with the paths of the page.
pub(super) struct Console<'a> {
    pub(super) system: &'a System,
    pub(super) kubepods: &'a Path,
}

impl Console<'_> {
    /// Returns the text with the present output of its commands.
    pub(super) fn rewritten(&self, text: &str) -> Result<String> {
        let mut lines = Vec::new();
        let mut inside = false;
        for line in text.split('\n') {
            match line {
                OPEN => inside = true,
                CLOSE => inside = false,
                _ => {}
            }
            match line.strip_prefix(PROMPT).filter(|_| inside) {
                Some(command) => {
                    lines.push(line.to_owned());
                    lines.extend(self.output(command)?.lines().map(|line| line.trim_end().to_owned()));
                }
                None if inside && line != OPEN => {}
                None => lines.push(line.to_owned()),
            }
        }
        Ok(lines.join("\n"))
    }

    fn output(&self, command: &str) -> Result<String> {
        let (bpffs, kubepods) = (self.system.bpffs().display().to_string(), self.kubepods.display().to_string());
        let command = self.of_this_node(command)?.replace(BPFFS, &bpffs).replace(KUBEPODS, &kubepods);
        let mut shell = self.system.topology.node.command("sh");
        let output = process::run(shell.args(["-c", &command])).with_context(|| command.clone())?;
        Ok(output.replace(&bpffs, BPFFS).replace(&kubepods, KUBEPODS))
    }

    /// Selects programs by id, because other tests' nodes have programs of the same names.
    fn of_this_node(&self, command: &str) -> Result<String> {
        let mut words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        if let Some(at) = words.iter().position(|word| word == "name") {
            let id = self.id(words.get(at + 1).context("a name")?)?;
            words.splice(at..=at + 1, ["id".to_owned(), id]);
        }
        Ok(words.join(" "))
    }

    fn id(&self, program: &str) -> Result<String> {
        let report = crate::operators::status::report(self.system)?.0;
        let programs = report["agent"]["datapath"]["programs"].as_array().context("programs")?;
        let id = |loaded: &Value| (loaded["name"] == program).then(|| loaded["id"].to_string());
        programs.iter().find_map(id).with_context(|| format!("no program {program}"))
    }
}

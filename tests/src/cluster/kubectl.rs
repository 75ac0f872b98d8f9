//! kubectl as the cluster's administrator.

use crate::{eventually::eventually, node::process};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    ffi::OsString,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// A kubectl with the credentials of its cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// `nsenter` into the node's network, the binary, the kubeconfig.
    prefix: Vec<OsString>,
}

impl Kubectl {
    pub(super) fn new(node_netns: PathBuf, kube: PathBuf, kubeconfig: PathBuf) -> Self {
        let mut net = OsString::from("--net=");
        net.push(node_netns);
        let prefix =
            vec!["nsenter".into(), net, kube.into(), "kubectl".into(), "--kubeconfig".into(), kubeconfig.into()];
        Self { prefix }
    }

    /// Returns a command to which arguments can be added.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let (program, prefix) = self.prefix.split_first().expect("a prefix of six words");
        let mut command = Command::new(program);
        // Without this machine's proxies and without a discovery cache in a home folder.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/nonexistent");
        command.args(prefix).args(arguments);
        command
    }

    /// Runs it and returns its standard output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        process::run(&mut self.command(arguments))
    }

    /// Runs it whatever its exit status.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&mut self.command(arguments))
    }

    /// Runs it and parses its output as JSON; the arguments must request that.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?} printed {text}"))
    }

    /// Runs it with a document as its standard input; the arguments must contain `-f -`.
    pub fn feed(&self, arguments: &[&str], document: &Value) -> Result<String> {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("a piped stdin")?.write_all(document.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "kubectl {arguments:?}: {err}{out}");
        Ok(out.into_owned())
    }

    /// Runs it until its output contains `wanted`.
    pub fn until(&self, arguments: &[&str], wanted: &str, patience: Duration) -> Result<String> {
        eventually(&format!("kubectl {} prints {wanted:?}", arguments.join(" ")), patience, || {
            let output = self.run(arguments)?;
            anyhow::ensure!(output.contains(wanted), "it prints {output:?}");
            Ok(output)
        })
    }
}

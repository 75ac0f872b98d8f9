//! curl, boto3 and the aws CLI, unmodified, without this machine's AWS or proxy settings.

use crate::node::{netns::Netns, process};
use anyhow::{Context as _, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The Python with moto, boto3 and the aws CLI, in the versions of `tests/requirements.txt`.
#[derive(Debug, Clone)]
pub struct Python {
    venv: PathBuf,
}

impl Python {
    /// Finds the virtual environment that `KIAM_PYTHON_VENV` names, otherwise `target/venv`. The error names the
    /// command that makes it.
    pub fn find() -> Result<Self> {
        let venv = match std::env::var_os("KIAM_PYTHON_VENV") {
            Some(venv) => PathBuf::from(venv),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv"),
        };
        if !venv.join("bin/python").exists() {
            bail!(
                "no Python at {}; make it with `python3 -m venv target/venv && target/venv/bin/pip install -r \
                 tests/requirements.txt`, or name another one in KIAM_PYTHON_VENV",
                venv.display()
            );
        }
        // Without symbolic links: a container of a test's pod contains only the real path.
        Ok(Self { venv: venv.canonicalize()? })
    }

    /// Returns its interpreter.
    #[must_use]
    pub fn interpreter(&self) -> PathBuf {
        self.venv.join("bin/python")
    }
}

/// Environment of a client in a pod, in addition to `PATH` and a `HOME` without files.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Variables.
    pub variables: Vec<(String, String)>,
}

impl Environment {
    /// Returns an environment with the test's STS and a region, as a cluster's webhook or an image would set them.
    #[must_use]
    pub fn with_sts(endpoint: &str) -> Self {
        let variables =
            [("AWS_ENDPOINT_URL_STS", endpoint), ("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "us-east-1")];
        Self { variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec() }
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces a command's environment with this one.
    pub fn apply(&self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/nonexistent");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
    }
}

/// Runs curl in a namespace.
pub fn curl(netns: &Netns, arguments: &[&str]) -> Result<Output> {
    let mut command = netns.command("curl");
    Environment { variables: Vec::new() }.apply(&mut command);
    process::output(command.args(["--silent", "--max-time", "5"]).args(arguments))
}

/// Identity that boto3 found, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boto3Identity {
    /// `Arn` of STS GetCallerIdentity.
    pub arn: String,
    /// Name of the credential provider in botocore: `iam-role` is the IMDS.
    pub method: String,
}

/// Returns the pod's identity at STS, found with boto3's default credential chain. An error contains boto3's output.
pub fn boto3_identity(netns: &Netns, python: &Python, environment: &Environment) -> Result<Boto3Identity> {
    const SCRIPT: &str = "
import boto3
session = boto3.Session()
credentials = session.get_credentials()
if credentials is None: raise SystemExit('no credentials')
print(session.client('sts').get_caller_identity()['Arn'], credentials.method)
";
    let mut command = netns.command(python.interpreter());
    environment.apply(&mut command);
    let output = process::run(command.args(["-c", SCRIPT]))?;
    let (arn, method) = output.trim().split_once(' ').context("two words")?;
    Ok(Boto3Identity { arn: arn.to_owned(), method: method.to_owned() })
}

/// Runs the aws CLI in a namespace. Its failures are in the output.
pub fn aws_cli(netns: &Netns, python: &Python, environment: &Environment, arguments: &[&str]) -> Result<Output> {
    let mut command = netns.command(python.interpreter());
    environment.apply(&mut command);
    process::output(command.args(["-m", "awscli"]).args(arguments))
}

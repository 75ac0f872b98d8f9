//! Pods that request credentials: with unmodified boto3 and aws CLI, and with a probe that runs until it is ended.

use super::{
    Cluster, TlsSts,
    images::{CLIENT, machine_folders},
    kubectl::Kubectl,
    probe::Probe,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

/// Folder with the CA certificate of STS in a pod.
const STS_FOLDER: &str = "/etc/sts";
/// Time a pod has to start on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// Network of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Its own.
    Own,
    /// The node's: `hostNetwork`.
    Nodes,
}

/// Parameters of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// Namespace, which must exist.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Annotations.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Network.
    pub network: Network,
    /// ServiceAccount, which must exist.
    pub service_account: &'a str,
}

impl<'a> Spec<'a> {
    /// Returns an ordinary pod: with its own network and its namespace's default ServiceAccount.
    #[must_use]
    pub const fn new(namespace: &'a str, name: &'a str, annotations: &'a [(&'a str, &'a str)]) -> Self {
        Self { namespace, name, annotations, network: Network::Own, service_account: "default" }
    }
}

/// Frequency and patience of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pause between two rounds, of one attempt for each family.
    pub pause: Duration,
    /// Timeout of an attempt.
    pub timeout: Duration,
}

impl Pace {
    /// Frequent attempts with a short timeout, like that of SDKs.
    pub const IMPATIENT: Self = Self { pause: Duration::from_millis(50), timeout: Duration::from_secs(1) };
    /// For many pods at a time on a machine with two CPUs.
    pub const PATIENT: Self = Self { pause: Duration::from_millis(500), timeout: Duration::from_secs(5) };
    /// Without pauses: at any moment an attempt is under way.
    pub const RESTLESS: Self = Self { pause: Duration::ZERO, timeout: Duration::from_secs(5) };
}

/// A pod with the machine's Python and tools in it.
#[derive(Debug)]
pub struct ClientPod {
    kubectl: Kubectl,
    interpreter: PathBuf,
    namespace: String,
    name: String,
}

impl ClientPod {
    /// Creates a pod and waits until it runs.
    pub fn create(cluster: &Cluster, spec: &Spec<'_>) -> Result<Self> {
        let pod = Self::begin(cluster, spec)?;
        pod.wait()?;
        Ok(pod)
    }

    /// Creates a pod and does not wait.
    pub fn begin(cluster: &Cluster, spec: &Spec<'_>) -> Result<Self> {
        let interpreter = cluster.python().interpreter();
        let pod = Self {
            kubectl: cluster.kubectl.clone(),
            interpreter,
            namespace: spec.namespace.to_owned(),
            name: spec.name.to_owned(),
        };
        let sts_folder = cluster.sts.ca().parent().context("a file in a folder")?;
        let mut mounts: Vec<(String, PathBuf)> = Vec::new();
        for folder in machine_folders(cluster.python())? {
            mounts.push((folder.to_str().context("a path in UTF-8")?.to_owned(), folder));
        }
        mounts.push((STS_FOLDER.to_owned(), sts_folder.to_owned()));
        pod.kubectl.feed(&["create", "-f", "-"], &manifest(spec, &mounts))?;
        Ok(pod)
    }

    /// Waits until it runs.
    pub fn wait(&self) -> Result<()> {
        let timeout = format!("--timeout={}s", START.as_secs());
        let Self { namespace, name, kubectl, .. } = self;
        if let Err(error) = kubectl.run(&["wait", "-n", namespace, "pod", name, "--for=condition=Ready", &timeout]) {
            let description = kubectl.run(&["describe", "-n", namespace, "pod", name]).unwrap_or_default();
            return Err(error).with_context(|| description);
        }
        Ok(())
    }

    /// Returns its addresses.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let pod = self.kubectl.json(&["get", "-n", &self.namespace, "pod", &self.name, "-o", "json"])?;
        let addresses = pod["status"]["podIPs"].as_array().context("the pod has addresses")?;
        addresses.iter().map(|entry| Ok(entry["ip"].as_str().context("an address")?.parse()?)).collect()
    }

    /// Returns the output of `kubectl describe pod`.
    pub fn describe(&self) -> Result<String> {
        self.kubectl.run(&["describe", "-n", &self.namespace, "pod", &self.name])
    }

    /// Deletes it and waits until it is gone.
    pub fn delete(self) -> Result<()> {
        self.kubectl.run(&["delete", "-n", &self.namespace, "pod", &self.name, "--timeout=60s"])?;
        Ok(())
    }

    /// Deletes many pods at once and waits until all are gone.
    pub fn delete_all(pods: &[Self]) -> Result<()> {
        let Some(Self { kubectl, namespace, .. }) = pods.first() else { return Ok(()) };
        let names = pods.iter().map(|pod| pod.name.as_str());
        let arguments: Vec<&str> =
            ["delete", "-n", namespace, "pods", "--timeout=120s"].into_iter().chain(names).collect();
        kubectl.run(&arguments)?;
        Ok(())
    }

    /// Runs Python in it and returns the output, whatever the exit status.
    pub fn python(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.kubectl.command(&["exec", "-n", &self.namespace, &self.name, "--"]);
        crate::node::process::output(command.arg(&self.interpreter).args(arguments))
    }

    /// Returns the `Arn` of GetCallerIdentity, as boto3 finds it. The error contains boto3's output.
    pub fn boto3_identity(&self) -> Result<String> {
        stdout_of(&self.python(&["-c", "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"])?)
    }

    /// Returns the `Arn` of GetCallerIdentity, as the aws CLI finds it. The error contains its output.
    pub fn cli_identity(&self) -> Result<String> {
        let arguments = ["-m", "awscli", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
        stdout_of(&self.python(&arguments)?)
    }

    /// Starts the probe.
    pub fn probe(&self, folder: &Path) -> Result<Probe> {
        self.probe_at(folder, Pace::IMPATIENT)
    }

    /// Starts the probe with a pace.
    pub fn probe_at(&self, folder: &Path, pace: Pace) -> Result<Probe> {
        let mut command = self.kubectl.command(&["exec", "--stdin", "-n", &self.namespace, &self.name, "--"]);
        command.arg(&self.interpreter).args(["-c", include_str!("../../fixtures/cluster/probe.py")]);
        command.args([pace.pause, pace.timeout].map(|time| time.as_secs_f64().to_string()));
        let log = folder.join(format!("probe-{}-{}.log", self.namespace, self.name));
        Probe::start(command, log)
    }
}

fn manifest(spec: &Spec<'_>, mounts: &[(String, PathBuf)]) -> Value {
    let annotations: serde_json::Map<_, _> =
        spec.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let environment = [
        ("AWS_ENDPOINT_URL_STS", TlsSts::endpoint()),
        ("AWS_CA_BUNDLE", format!("{STS_FOLDER}/ca.pem")),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
    ];
    let volume = |(number, (_, path)): (usize, &(String, PathBuf))| json!({ "name": format!("v{number}"), "hostPath": { "path": path } });
    let mount = |(number, (at, _)): (usize, &(String, PathBuf))| json!({ "name": format!("v{number}"), "mountPath": at, "readOnly": true });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": spec.name, "namespace": spec.namespace, "annotations": annotations },
        "spec": {
            // Its process is PID 1 and ignores SIGTERM.
            "terminationGracePeriodSeconds": 1,
            "hostNetwork": spec.network == Network::Nodes,
            "serviceAccountName": spec.service_account,
            "containers": [{
                "name": "client",
                "image": CLIENT,
                "imagePullPolicy": "Never",
                "command": ["sleep", "infinity"],
                "env": environment.map(|(name, value)| json!({ "name": name, "value": value })),
                "volumeMounts": mounts.iter().enumerate().map(mount).collect::<Vec<_>>(),
            }],
            "volumes": mounts.iter().enumerate().map(volume).collect::<Vec<_>>(),
        },
    })
}

fn stdout_of(output: &Output) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {err}{out}", output.status);
    Ok(out.trim().to_owned())
}

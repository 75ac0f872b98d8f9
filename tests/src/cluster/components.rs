//! The daemons of the node, in the order of their start, and their flags.

use super::node::Node;
use crate::{
    eventually::eventually,
    node::{
        process::{self, Daemon},
        topology::{NODE_NAME, NODE_V4},
    },
};
use anyhow::{Context as _, Result, ensure};
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Socket of containerd.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Seconds a component has to start on a loaded machine.
const START_SECONDS_MAX: u64 = 90;

/// Starts components of one cluster.
pub(super) struct Components<'a> {
    pub(super) node: &'a Node,
    pub(super) kube: &'a Path,
    pub(super) state: &'a Path,
}

impl Components<'_> {
    pub(super) fn containerd(&self) -> Result<Daemon> {
        let config = self.state.join("containerd.toml");
        let arguments = [OsStr::new("containerd"), OsStr::new("--config"), config.as_os_str()];
        self.node.daemon("containerd", &arguments)
    }

    /// Waits until containerd answers.
    pub(super) fn containerd_answers(&self, containerd: &mut Daemon) -> Result<()> {
        eventually("containerd answers", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(containerd.is_running()?, "it ended\n{}", containerd.log_tail());
            process::run(self.ctr().arg("version"))
        })?;
        Ok(())
    }

    /// Imports images into containerd.
    pub(super) fn import(&self, archives: &[PathBuf]) -> Result<()> {
        for archive in archives {
            process::run(self.ctr().args(["--namespace", "k8s.io", "images", "import"]).arg(archive))?;
            // containerd has its own copy.
            fs::remove_file(archive)?;
        }
        Ok(())
    }

    fn ctr(&self) -> std::process::Command {
        let mut command = self.node.command("ctr");
        command.args(["--address", CONTAINERD]);
        command
    }

    pub(super) fn api_server(&self, service: &str) -> Result<Daemon> {
        fs::create_dir(self.state.join("etcd"))?;
        let flags = [
            format!("--etcd-dir={}", self.path("etcd")),
            "--bind-address=0.0.0.0".to_owned(),
            "--secure-port=443".to_owned(),
            format!("--advertise-address={NODE_V4}"),
            format!("--tls-cert-file={}", self.path("pki/apiserver.crt")),
            format!("--tls-private-key-file={}", self.path("pki/apiserver.key")),
            format!("--client-ca-file={}", self.path("pki/ca.crt")),
            format!("--kubelet-client-certificate={}", self.path("pki/apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", self.path("pki/apiserver-kubelet.key")),
            format!("--kubelet-certificate-authority={}", self.path("pki/ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--service-cluster-ip-range={service}/24"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", self.path("pki/sa.pub")),
            format!("--service-account-signing-key-file={}", self.path("pki/sa.key")),
            // Pods reach the one API server at an address of the node's lo.
            "--endpoint-reconciler-type=none".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.start("kube-apiserver", &flags)
    }

    /// Waits until the API server is ready.
    pub(super) fn api_server_is_ready(&self, api_server: &mut Daemon) -> Result<()> {
        eventually("the API server is ready", Duration::from_secs(START_SECONDS_MAX), || {
            ensure!(api_server.is_running()?, "it ended\n{}", api_server.log_tail());
            let mut curl = self.node.command("curl");
            curl.args(["--silent", "--max-time", "5", "--cacert", &self.path("pki/ca.crt")]);
            let answer = process::run(curl.arg("https://127.0.0.1/readyz"))?;
            ensure!(answer == "ok", "it answers {answer}");
            Ok(())
        })
    }

    pub(super) fn kubelet(&self) -> Result<Daemon> {
        let flags = [
            format!("--config={}", self.path("kubelet.yaml")),
            format!("--kubeconfig={}", self.path("pki/kubelet.kubeconfig")),
            format!("--cert-dir={}", self.path("pki")),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={NODE_V4}"),
        ];
        self.start("kubelet", &flags)
    }

    pub(super) fn controller_manager(&self) -> Result<Daemon> {
        let flags = [
            format!("--kubeconfig={}", self.path("pki/controller-manager.kubeconfig")),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            // The default, 20 per second, delays a new cluster by seconds.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            format!("--service-account-private-key-file={}", self.path("pki/sa.key")),
            format!("--root-ca-file={}", self.path("pki/ca.crt")),
            // By default it would make a folder on the machine.
            "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".to_owned(),
            // Each controller has its own rights: a common account would lack most of them.
            "--use-service-account-credentials=true".to_owned(),
        ];
        self.start("kube-controller-manager", &flags)
    }

    pub(super) fn scheduler(&self) -> Result<Daemon> {
        let flags = [
            format!("--kubeconfig={}", self.path("pki/scheduler.kubeconfig")),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        self.start("kube-scheduler", &flags)
    }

    fn start(&self, component: &str, flags: &[String]) -> Result<Daemon> {
        let mut arguments: Vec<OsString> = vec![self.kube.into(), component.into()];
        arguments.extend(flags.iter().map(OsString::from));
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        self.node.daemon(component, &arguments).with_context(|| format!("start {component}"))
    }

    fn path(&self, file: &str) -> String {
        self.state.join(file).display().to_string()
    }
}

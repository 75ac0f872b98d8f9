//! A real one-node Kubernetes in namespaces of its own: API server with etcd, controller-manager, scheduler, kubelet,
//! containerd, and a CNI plugin, in the network of every test ([`crate::node::topology`]).
//!
//! ```text
//! uplink (fake IMDS, STS over TLS) ── node (the components; hostNetwork pods) ── veth… ── pods
//! ```
//!
//! From the processes inwards:
//! - `kube_binary`: the binary of all components.
//! - `state`, `node`: the folder, the control groups and the namespaces; PID 1.
//! - `authority`, `pki`, `config`, `components`: certificates, files and flags of the components, and the order of
//!   their start.
//! - `image`, `images`: images for the kubelet, built on the spot.
//! - [`kubectl`], [`client`], [`probe`]: what a test uses of it.
//! - [`manifests`]: the shipped manifests, and the overlay that adapts them to this cluster.
//!
//! The node has no cluster DNS (the service's name is in its `/etc/hosts`), no kube-proxy, and no route out.

mod authority;
pub mod client;
mod components;
mod config;
mod image;
pub mod images;
mod kube_binary;
pub mod kubectl;
pub mod manifests;
mod node;
mod pki;
pub mod probe;
mod state;
mod sts;

pub use kube_binary::kube_binary;
pub use state::Cgroups;
pub use sts::TlsSts;

use crate::{
    clients::Python,
    eventually::eventually,
    fakes::{canary::Canary, pki::SERVER_NAME},
    node::{
        process::Daemon,
        topology::{NODE_NAME, NODE_V4, Topology},
    },
};
use anyhow::{Context as _, Result, ensure};
use components::Components;
use kubectl::Kubectl;
use node::Node;
use state::State;
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Address of the API server in the cluster; the first of the service range.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Seconds the node has to become ready on a loaded machine.
const READY_SECONDS_MAX: u64 = 90;

/// An image with one of our binaries.
#[derive(Debug, Clone)]
pub struct OwnImage {
    /// Path of the built binary.
    pub binary: PathBuf,
    /// Name of the image.
    pub name: &'static str,
}

/// The containernetworking plugin that makes the networks of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cni {
    /// Each pod behind a routed veth, `veth…` on the node.
    Ptp,
    /// All pods behind the bridge `cni0`.
    Bridge,
}

/// Parameters of a cluster.
#[derive(Debug)]
pub struct Options<'a> {
    /// The target folder, where the Kubernetes binary is kept.
    pub target: &'a Path,
    /// Layout of the control groups.
    pub cgroups: Cgroups,
    /// Plugin for the networks of pods.
    pub cni: Cni,
    /// Our images.
    pub images: &'a [OwnImage],
}

/// A running cluster. Dropping it removes everything. The fields are dropped in this order.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    components: Vec<Daemon>,
    /// STS.
    pub sts: TlsSts,
    /// The fake IMDS.
    pub canary: Canary,
    /// The network.
    pub topology: Topology,
    /// kubectl.
    pub kubectl: Kubectl,
    python: Python,
    state: State,
}

/// Removes what clusters of dead processes left behind.
pub fn reap() -> Result<()> {
    crate::node::leftovers::reap()?;
    state::reap()
}

impl Cluster {
    /// Starts a cluster and waits until pods can be scheduled. The error contains the logs of the components.
    pub fn start(options: &Options<'_>) -> Result<Self> {
        let kube = kube_binary(options.target)?;
        let python = Python::find()?;
        let begin = Instant::now();
        let state = State::create()?;
        let folder = state.folder().to_owned();
        let topology = Topology::create()?;
        topology.node.ip(&format!("addr add {API_SERVICE}/32 dev lo"))?;
        let canary = Canary::start(&topology.uplink)?;
        let sts = TlsSts::start(&topology.uplink, &python, &folder.join("sts"))?;
        pki::write(&folder.join("pki"), NODE_NAME, NODE_V4, API_SERVICE)?;
        config::write(&folder, options.cgroups, options.cni, SERVER_NAME)?;
        let node = Node::start(&topology, &state, options.cgroups)?;
        let kubeconfig = folder.join("pki/admin.kubeconfig");
        let kubectl = Kubectl::new(topology.node.path().to_owned(), kube.clone(), kubeconfig);
        let mut cluster = Self { node, components: Vec::new(), sts, canary, topology, kubectl, python, state };
        cluster.start_components(&kube, options.images)?;
        cluster.sts.is_ready(&cluster.topology.uplink)?;
        eprintln!("the cluster is up after {:.1} s", begin.elapsed().as_secs_f64());
        Ok(cluster)
    }

    fn start_components(&mut self, kube: &Path, own: &[OwnImage]) -> Result<()> {
        let components = Components { node: &self.node, kube, state: self.state.folder() };
        let mut api_server = components.api_server(&API_SERVICE.to_string())?;
        let mut containerd = components.containerd()?;
        let archives = write_images(&self.state.folder().join("images"), own)?;
        components.containerd_answers(&mut containerd)?;
        components.import(&archives)?;
        let kubelet = components.kubelet()?;
        components.api_server_is_ready(&mut api_server)?;
        let controller_manager = components.controller_manager()?;
        let scheduler = components.scheduler()?;
        self.components.extend([api_server, containerd, kubelet, controller_manager, scheduler]);
        self.wait_until_schedulable().with_context(|| self.component_logs())
    }

    /// Waits until pods can be scheduled. A ready node may still be tainted, and a new namespace has no ServiceAccount
    /// at first.
    fn wait_until_schedulable(&mut self) -> Result<()> {
        let patience = Duration::from_secs(READY_SECONDS_MAX);
        let (node, kubectl) = (&mut self.node, &self.kubectl);
        eventually("pods can be scheduled", patience, || {
            node.check()?;
            let spec_and_status = kubectl.json(&["get", "node", NODE_NAME, "-o", "json"])?;
            let conditions = spec_and_status["status"]["conditions"].as_array();
            let is_ready =
                |condition: &serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
            ensure!(conditions.is_some_and(|all| all.iter().any(is_ready)), "the node is not ready");
            ensure!(spec_and_status["spec"]["taints"].is_null(), "the node is tainted");
            kubectl.run(&["get", "serviceaccount", "default"])
        })?;
        // The kubelet may not set this label on its own node.
        kubectl.run(&["label", "node", NODE_NAME, "node-role.kubernetes.io/control-plane="])?;
        Ok(())
    }

    /// Returns the folder of this cluster, which is removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.state.folder()
    }

    /// Returns the Python of the clients in pods.
    #[must_use]
    pub fn python(&self) -> &Python {
        &self.python
    }

    /// Returns the node's root folder, with its mounts, as seen from outside.
    #[must_use]
    pub fn node_root(&self) -> PathBuf {
        self.node.root()
    }

    /// Returns a command in all namespaces of the node, as its root user.
    #[must_use]
    pub fn node_command(&self, program: &str) -> Command {
        self.node.command(program)
    }

    /// Returns what helps after a failure: the cluster's state, and the logs of our containers and the components.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        for arguments in [
            ["get", "pods", "--all-namespaces", "-o", "wide"].as_slice(),
            &["get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"],
            &["logs", "-n", "kiam-system", "-l", "app.kubernetes.io/name=kiam", "--prefix", "--tail=60"],
            &["logs", "-n", "kiam-system", "-l", "app.kubernetes.io/name=kiam", "--prefix", "--tail=60", "--previous"],
        ] {
            let output = self.kubectl.run(arguments).unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&format!("---- kubectl {} ----\n{output}\n", arguments.join(" ")));
        }
        text + &self.component_logs()
    }

    fn component_logs(&self) -> String {
        self.components.iter().map(Daemon::log_tail).collect::<Vec<_>>().join("\n")
    }
}

fn write_images(folder: &Path, own: &[OwnImage]) -> Result<Vec<PathBuf>> {
    fs::create_dir(folder)?;
    images::write_base(folder)?;
    for OwnImage { binary, name } in own {
        let file_name = binary.file_name().context("a binary has a name")?;
        images::write_binary(binary, name, &folder.join(file_name).with_extension("tar"))?;
    }
    let archives = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    Ok(archives)
}

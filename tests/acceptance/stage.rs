//! Foundation of the trials: the cluster, the shipped manifests in it, and the pods that send requests.

use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    cluster::{
        Cgroups, Cluster, Cni, Options, OwnImage,
        client::{ClientPod, Network, Spec},
        images::{AGENT, SERVER},
        manifests::{self, Manifests},
        probe::{Attempt, Got, Probe},
    },
    fakes::canary::{ACCESS_KEY_ID, NODE_ROLE},
    leaks,
    system::{Binaries, Footprint},
};
use serde_json::json;
use std::{
    env,
    path::{Path, PathBuf},
};

/// Namespace of the shipped manifests.
pub(crate) const KIAM: &str = "kiam-system";
/// Namespace of the pods; it permits [`ROLE`] and [`OTHER_ROLE`].
pub(crate) const TEAM: &str = "team";
/// Role of the permitted pods.
pub(crate) const ROLE: &str = "reader";
/// Role of other pods.
pub(crate) const OTHER_ROLE: &str = "writer";
/// A role that the namespace does not permit.
pub(crate) const FORBIDDEN_ROLE: &str = "admin";
/// Annotation of a pod's role.
pub(crate) const ROLE_ANNOTATION: &str = "iam.amazonaws.com/role";

/// Kind of a cluster, and its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The shipped manifests, on a node with version 2 control groups alone whose pods have routed veths.
    Shipped,
    /// The same with enforcement and its exemptions, on a node with both versions whose pods are behind a bridge.
    Enforced,
}

impl Scene {
    const fn options<'a>(self, target: &'a Path, images: &'a [OwnImage]) -> Options<'a> {
        let (cgroups, cni) = match self {
            Self::Shipped => (Cgroups::V2, Cni::Ptp),
            Self::Enforced => (Cgroups::Hybrid, Cni::Bridge),
        };
        Options { target, cgroups, cni, images }
    }
}

/// The cluster, in the state that the trials so far have left.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    deployed: Option<Deployed>,
    /// Scenes that could not be started; they are not tried again.
    broken: Vec<Scene>,
}

/// A cluster with the shipped manifests rolled out.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) cluster: Cluster,
    pub(crate) manifests: Manifests,
    /// The node's footprint before the first pod.
    pub(crate) before: Footprint,
    /// A permitted pod that existed before kiam, and has shown that it reached the canary then.
    pub(crate) veteran: ClientPod,
    pub(crate) scene: Scene,
}

impl Stage {
    /// Returns the cluster with the shipped manifests; starts it if necessary.
    pub(crate) fn deployed(&mut self) -> Result<&mut Deployed> {
        self.scene(Scene::Shipped)
    }

    /// Returns the cluster with enforcement. Only one cluster runs at a time: two would slow each other down on two
    /// CPUs.
    pub(crate) fn enforced(&mut self) -> Result<&mut Deployed> {
        self.scene(Scene::Enforced)
    }

    /// Returns the running cluster.
    pub(crate) fn present(&mut self) -> Result<&mut Deployed> {
        let scene = self.deployed.as_ref().map_or(Scene::Shipped, |deployed| deployed.scene);
        self.scene(scene)
    }

    fn scene(&mut self, scene: Scene) -> Result<&mut Deployed> {
        ensure!(
            !self.broken.contains(&scene),
            "the cluster could not be started for an earlier trial; see its failure"
        );
        if self.deployed.as_ref().is_none_or(|deployed| deployed.scene != scene) {
            self.take_down();
            self.broken.push(scene);
            self.deployed = Some(Deployed::start(scene)?);
            self.broken.retain(|broken| *broken != scene);
        }
        self.deployed.as_mut().context("set above")
    }

    /// Returns what helps after a failure.
    pub(crate) fn diagnosis(&self) -> String {
        self.deployed.as_ref().map_or_else(String::new, |deployed| deployed.cluster.diagnosis())
    }

    pub(crate) fn take_down(&mut self) {
        self.deployed = None;
    }
}

/// Returns cargo's target folder: this program is in `TARGET/debug/deps`.
pub(crate) fn target() -> Result<PathBuf> {
    let program = env::current_exe()?;
    program.ancestors().nth(3).map(ToOwned::to_owned).context("cargo's target folder")
}

impl Deployed {
    fn start(scene: Scene) -> Result<Self> {
        let binaries = Binaries::find()?;
        let images =
            [OwnImage { binary: binaries.agent(), name: AGENT }, OwnImage { binary: binaries.server(), name: SERVER }];
        let cluster = Cluster::start(&scene.options(&target()?, &images))?;
        let before = Self::footprint(&cluster)?;
        let role = format!("arn:aws:iam::{}:role/({ROLE}|{OTHER_ROLE})", kiam_tests::fakes::sts::ACCOUNT);
        cluster.kubectl.feed(
            &["create", "-f", "-"],
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": TEAM, "annotations": { "iam.amazonaws.com/permitted": role },
            }}),
        )?;
        let veteran = ClientPod::create(&cluster, &Spec::new(TEAM, "veteran", &[(ROLE_ANNOTATION, ROLE)]))?;
        control_reaches(&cluster, &veteran)?;
        let manifests = Manifests::prepare(&cluster.folder().join("kustomize"), cluster.sts.ca())?;
        let deployed = Self { cluster, manifests, before, veteran, scene };
        deployed.roll_out().with_context(|| deployed.cluster.diagnosis())?;
        Ok(deployed)
    }

    fn roll_out(&self) -> Result<()> {
        let kubectl = &self.cluster.kubectl;
        manifests::apply(kubectl, &self.applied())?;
        // This cluster has one node, and a node has room for one server.
        kubectl.run(&["scale", "-n", KIAM, "deployment/kiam-server", "--replicas=1"])?;
        self.rolled_out("deployment/kiam-server")?;
        self.rolled_out("daemonset/kiam-agent")
    }

    /// Returns the folder for `kubectl apply -k`.
    pub(crate) fn applied(&self) -> PathBuf {
        match self.scene {
            Scene::Shipped => self.manifests.fitted(),
            Scene::Enforced => self.manifests.enforced(),
        }
    }

    /// Waits until every pod of a workload is up to date and ready.
    pub(crate) fn rolled_out(&self, workload: &str) -> Result<()> {
        self.cluster.kubectl.run(&["rollout", "status", "-n", KIAM, workload, "--timeout=120s"])?;
        Ok(())
    }

    /// Creates a pod in the pods' namespace, with or without a role.
    pub(crate) fn pod(&self, name: &str, role: Option<&str>) -> Result<ClientPod> {
        let annotation = role.map(|role| (ROLE_ANNOTATION, role));
        ClientPod::create(&self.cluster, &Spec::new(TEAM, name, annotation.as_slice()))
    }

    /// Creates many pods, every other one with [`OTHER_ROLE`]; returns each with its role.
    pub(crate) fn crowd(&self, count: usize, network: Network) -> Result<Vec<(ClientPod, &'static str)>> {
        let pods = (0..count).map(|number| {
            let role = [ROLE, OTHER_ROLE][number % 2];
            let name = format!("one-of-many-{number}");
            let annotations = [(ROLE_ANNOTATION, role)];
            let spec = Spec { network, ..Spec::new(TEAM, &name, &annotations) };
            Ok((ClientPod::begin(&self.cluster, &spec)?, role))
        });
        let pods = pods.collect::<Result<Vec<_>>>()?;
        pods.iter().try_for_each(|(pod, _)| pod.wait())?;
        Ok(pods)
    }

    /// Asserts the invariant of every state with kiam installed: no packet of a pod is at the canary.
    pub(crate) fn expect_no_leak(&self) -> Result<()> {
        self.cluster.canary.expect_none_from_pods(&self.cluster.topology.node)
    }

    /// Returns the node's rules, routes, filters and pins.
    pub(crate) fn footprint(cluster: &Cluster) -> Result<Footprint> {
        Footprint::take(&cluster.topology.node, &cluster.node_root().join("sys/fs/bpf"))
    }
}

/// Shows that the pod's requests reach the canary over both families with nothing of ours in the way, then forgets
/// them.
pub(crate) fn control_reaches(cluster: &Cluster, pod: &ClientPod) -> Result<()> {
    let mut probe = pod.probe(cluster.folder())?;
    let attempts = enough(&mut probe)?;
    let node_role = Got::Credentials { role: NODE_ROLE.to_owned(), access_key_id: ACCESS_KEY_ID.to_owned() };
    for attempt in attempts {
        ensure!(attempt.got == node_role, "control: {attempt:?}");
    }
    probe.end()?;
    cluster.canary.settle(&cluster.topology.node)?;
    for address in pod.addresses()? {
        ensure!(!cluster.canary.packets_from(address).is_empty(), "control: no packet of {address} at the canary");
    }
    cluster.canary.forget();
    Ok(())
}

/// Returns the next attempts of a probe, some for each family.
pub(crate) fn enough(probe: &mut Probe) -> Result<Vec<Attempt>> {
    /// Both families, several times.
    const ATTEMPTS_MIN: usize = 10;
    let mut attempts = Vec::new();
    kiam_tests::eventually::eventually("the probe sends requests", kiam_tests::system::SOON, || {
        attempts.extend(probe.news()?);
        ensure!(attempts.len() >= ATTEMPTS_MIN, "{} attempts", attempts.len());
        Ok(())
    })?;
    Ok(attempts)
}

/// Asserts that each attempt of a pod with [`ROLE`] got its own role or nothing.
pub(crate) fn expect_own_or_nothing(attempts: &[Attempt]) -> Result<()> {
    expect_role_or_nothing(attempts, ROLE)
}

/// Asserts that each attempt got this role or nothing.
pub(crate) fn expect_role_or_nothing(attempts: &[Attempt], own: &str) -> Result<()> {
    for attempt in attempts {
        match &attempt.got {
            Got::Credentials { role, access_key_id } if role == NODE_ROLE || access_key_id == ACCESS_KEY_ID => {
                bail!("{}: {attempt:?}", leaks::CANARY)
            }
            Got::Credentials { role, .. } if role != own => bail!("{}: {attempt:?}", leaks::OTHER_ROLE),
            Got::Credentials { .. } | Got::Refused(_) | Got::Nothing(_) => {}
        }
    }
    Ok(())
}

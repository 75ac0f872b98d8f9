//! What the trials stand on: the cluster, what is shipped in it, and the pods that ask.

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

/// The namespace of what is shipped.
pub(crate) const KIAM: &str = "kiam-system";
/// The namespace of the pods; it permits [`ROLE`] and [`OTHER_ROLE`].
pub(crate) const TEAM: &str = "team";
/// The role of the permitted pods.
pub(crate) const ROLE: &str = "reader";
/// The role of others.
pub(crate) const OTHER_ROLE: &str = "writer";
/// A role that the namespace does not permit.
pub(crate) const FORBIDDEN_ROLE: &str = "admin";
/// The annotation of a pod's role.
pub(crate) const ROLE_ANNOTATION: &str = "iam.amazonaws.com/role";

/// What a cluster is like, and what is deployed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// What is shipped, on a node with version 2 control groups alone whose pods have routed veths.
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

/// The cluster, in whatever state the trials so far have brought it to.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    deployed: Option<Deployed>,
    /// Starting it is not tried twice.
    broken: Vec<Scene>,
}

/// A cluster with what is shipped rolled out in it.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) cluster: Cluster,
    pub(crate) manifests: Manifests,
    /// The node as it was before the first pod.
    pub(crate) before: Footprint,
    /// A permitted pod that was there before kiam, and has shown that it reaches the canary then.
    pub(crate) veteran: ClientPod,
    pub(crate) scene: Scene,
}

impl Stage {
    /// The cluster with what is shipped; brought about when it isn't there.
    pub(crate) fn deployed(&mut self) -> Result<&mut Deployed> {
        self.scene(Scene::Shipped)
    }

    /// The one with enforcement. There is one cluster at a time: two on two processors only slow each other down.
    pub(crate) fn enforced(&mut self) -> Result<&mut Deployed> {
        self.scene(Scene::Enforced)
    }

    /// The one that there is.
    pub(crate) fn present(&mut self) -> Result<&mut Deployed> {
        let scene = self.deployed.as_ref().map_or(Scene::Shipped, |deployed| deployed.scene);
        self.scene(scene)
    }

    fn scene(&mut self, scene: Scene) -> Result<&mut Deployed> {
        ensure!(
            !self.broken.contains(&scene),
            "the cluster was not brought up for an earlier trial; its failure says why"
        );
        if self.deployed.as_ref().is_none_or(|deployed| deployed.scene != scene) {
            self.take_down();
            self.broken.push(scene);
            self.deployed = Some(Deployed::bring_about(scene)?);
            self.broken.retain(|broken| *broken != scene);
        }
        self.deployed.as_mut().context("set above")
    }

    /// What one wants to see after a failure.
    pub(crate) fn diagnosis(&self) -> String {
        self.deployed.as_ref().map_or_else(String::new, |deployed| deployed.cluster.diagnosis())
    }

    pub(crate) fn take_down(&mut self) {
        self.deployed = None;
    }
}

/// The folder that cargo builds into: this program is in `TARGET/debug/deps`.
pub(crate) fn target() -> Result<PathBuf> {
    let program = env::current_exe()?;
    program.ancestors().nth(3).map(ToOwned::to_owned).context("cargo's target folder")
}

impl Deployed {
    fn bring_about(scene: Scene) -> Result<Self> {
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

    /// The folder that `kubectl apply -k` was given.
    pub(crate) fn applied(&self) -> PathBuf {
        match self.scene {
            Scene::Shipped => self.manifests.fitted(),
            Scene::Enforced => self.manifests.enforced(),
        }
    }

    /// Waits until every pod of a workload is the newest and ready.
    pub(crate) fn rolled_out(&self, workload: &str) -> Result<()> {
        self.cluster.kubectl.run(&["rollout", "status", "-n", KIAM, workload, "--timeout=120s"])?;
        Ok(())
    }

    /// A pod in the namespace of the pods; with a role or without.
    pub(crate) fn pod(&self, name: &str, role: Option<&str>) -> Result<ClientPod> {
        let annotation = role.map(|role| (ROLE_ANNOTATION, role));
        ClientPod::create(&self.cluster, &Spec::new(TEAM, name, annotation.as_slice()))
    }

    /// Many pods, every other one with [`OTHER_ROLE`]: each with its role.
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

    /// Asserts the invariant of every state, with kiam installed: nothing of a pod is at the canary.
    pub(crate) fn expect_no_leak(&self) -> Result<()> {
        self.cluster.canary.expect_none_from_pods(&self.cluster.topology.node)
    }

    /// The node's rules, routes, filters and pins.
    pub(crate) fn footprint(cluster: &Cluster) -> Result<Footprint> {
        Footprint::take(&cluster.topology.node, &cluster.node_root().join("sys/fs/bpf"))
    }
}

/// Shows that the pod's requests reach the canary, over both families, with nothing of ours in the way; then forgets
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

/// The next attempts of a probe, some for each family.
pub(crate) fn enough(probe: &mut Probe) -> Result<Vec<Attempt>> {
    /// Both families, a few times.
    const ATTEMPTS_MIN: usize = 10;
    let mut attempts = Vec::new();
    kiam_tests::eventually::eventually("the probe asks", kiam_tests::system::SOON, || {
        attempts.extend(probe.news()?);
        ensure!(attempts.len() >= ATTEMPTS_MIN, "{} attempts", attempts.len());
        Ok(())
    })?;
    Ok(attempts)
}

/// Asserts of each attempt of a pod that is permitted [`ROLE`] that it got its own role or nothing.
pub(crate) fn expect_own_or_nothing(attempts: &[Attempt]) -> Result<()> {
    expect_role_or_nothing(attempts, ROLE)
}

/// The same for any role.
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

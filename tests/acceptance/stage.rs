//! What the trials stand on: the cluster, what is shipped in it, and the pods that ask.

use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    canary::{ACCESS_KEY_ID, NODE_ROLE},
    cluster::{
        Cgroups, Cluster, Options, OwnImage,
        client::{ClientPod, Network},
        images::{AGENT, SERVER},
        manifests::{self, Manifests},
        probe::{Attempt, Got, Probe},
    },
    leaks,
    system::{Binaries, Footprint},
};
use serde_json::json;
use std::{env, path::PathBuf};

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
const ROLE_ANNOTATION: &str = "iam.amazonaws.com/role";

/// The cluster, in whatever state the trials so far have brought it to.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    deployed: Option<Deployed>,
    /// Starting it is not tried twice.
    broken: bool,
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
}

impl Stage {
    /// The cluster with what is shipped; brought about when it isn't there.
    pub(crate) fn deployed(&mut self) -> Result<&mut Deployed> {
        ensure!(!self.broken, "the cluster was not brought up for an earlier trial; its failure says why");
        if self.deployed.is_none() {
            self.broken = true;
            self.deployed = Some(Deployed::bring_about()?);
            self.broken = false;
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
    fn bring_about() -> Result<Self> {
        let binaries = Binaries::find()?;
        let images =
            [OwnImage { binary: binaries.agent(), name: AGENT }, OwnImage { binary: binaries.server(), name: SERVER }];
        let cluster = Cluster::start(&Options { target: &target()?, cgroups: Cgroups::V2, images: &images })?;
        let before = Self::footprint(&cluster)?;
        let role = format!("arn:aws:iam::{}:role/({ROLE}|{OTHER_ROLE})", kiam_tests::sts::ACCOUNT);
        cluster.kubectl.feed(
            &["create", "-f", "-"],
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": TEAM, "annotations": { "iam.amazonaws.com/permitted": role },
            }}),
        )?;
        let veteran = ClientPod::create(&cluster, TEAM, "veteran", &[(ROLE_ANNOTATION, ROLE)])?;
        control_reaches(&cluster, &veteran)?;
        let manifests = Manifests::prepare(&cluster.folder().join("kustomize"), cluster.sts.ca())?;
        let deployed = Self { cluster, manifests, before, veteran };
        deployed.roll_out().with_context(|| deployed.cluster.diagnosis())?;
        Ok(deployed)
    }

    fn roll_out(&self) -> Result<()> {
        let kubectl = &self.cluster.kubectl;
        manifests::apply(kubectl, &self.manifests.fitted())?;
        // This cluster has one node, and a node has room for one server.
        kubectl.run(&["scale", "-n", KIAM, "deployment/kiam-server", "--replicas=1"])?;
        self.rolled_out("deployment/kiam-server")?;
        self.rolled_out("daemonset/kiam-agent")
    }

    /// Waits until every pod of a workload is the newest and ready.
    pub(crate) fn rolled_out(&self, workload: &str) -> Result<()> {
        self.cluster.kubectl.run(&["rollout", "status", "-n", KIAM, workload, "--timeout=120s"])?;
        Ok(())
    }

    /// A pod in the namespace of the pods; with a role or without.
    pub(crate) fn pod(&self, name: &str, role: Option<&str>) -> Result<ClientPod> {
        let annotation = role.map(|role| (ROLE_ANNOTATION, role));
        ClientPod::create(&self.cluster, TEAM, name, annotation.as_slice())
    }

    /// Many pods, every other one with [`OTHER_ROLE`]: each with its role.
    pub(crate) fn crowd(&self, count: usize, network: Network) -> Result<Vec<(ClientPod, &'static str)>> {
        let pods = (0..count).map(|number| {
            let role = [ROLE, OTHER_ROLE][number % 2];
            let name = format!("one-of-many-{number}");
            Ok((ClientPod::begin(&self.cluster, TEAM, &name, &[(ROLE_ANNOTATION, role)], network)?, role))
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

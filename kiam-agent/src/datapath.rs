//! The datapath of a node: hands each pod's connection to the IMDS to the agent's listening socket, and drops it when no
//! agent listens.
//!
//! Reading order: [`programs`] (what is loaded, pinned and attached), [`node`] (what the node looks like), [`mod@redirect`]
//! (hands connections to the agent), [`fence`] (policy routing), [`guard`] (programs on uplinks), [`ownership`] (which
//! agent may change it), [`self_check`] (finds and repairs what is missing), [`foreign`] (packet filters and networks of
//! others), [`mod@report`] (the state, for people), [`cleanup`]. This module is their order: open, claim, reconcile.

pub(crate) mod cleanup;
pub(crate) mod fence;
pub(crate) mod foreign;
pub(crate) mod guard;
pub(crate) mod node;
pub(crate) mod ownership;
mod parts;
pub(crate) mod programs;
pub(crate) mod redirect;
mod report;
mod self_check;

use crate::{
    config::{Attestation, DatapathConfig},
    report::{Condition, DatapathReport, Interface, Notice, PacketCount, ProbeResult, condition},
};
use anyhow::{Context as _, bail};
use fence::{Fence, Verdict};
use foreign::netfilter::nft::Nft;
use node::{addresses, interface_ages::InterfaceAges, kubepods::Kubepods, netlink};
use ownership::owner::{self, Installation};
use parts::Parts;
use programs::{
    backstop,
    pins::{self, Pins},
};
use redirect::{cgroup::Cgroup, listener};
use self_check::{SelfCheck, reachability::Reachability};
use std::{collections::BTreeMap, net::TcpListener, path::Path};

/// Name of the condition that this agent has claimed the datapath.
pub(crate) const OWNER: &str = "owner";

pub(crate) use report::inventory::inventory;

/// The datapath of this node, as one agent holds it. Dropping it leaves everything pinned and closed.
pub(crate) struct Datapath {
    parts: Parts,
    installation: Installation,
    kubepods: Option<Kubepods>,
    cgroup: Cgroup,
    interface_ages: InterfaceAges,
    /// Generation of this agent's claim; 0 until the first one.
    generation: u64,
    /// Conditions as of the last [`Self::reconcile`].
    conditions: Vec<Condition>,
    self_check: SelfCheck,
    reachability: Reachability,
}

impl Datapath {
    /// Prepares everything that another agent of this node cannot notice: loads the programs and maps, and opens the
    /// listening sockets.
    ///
    /// # Errors
    /// What this node lacks, and how to provide it.
    pub(crate) fn open(
        config: &DatapathConfig,
        root: &Path,
        take_over: bool,
        netlink: rtnetlink::Handle,
        interface_ages: InterfaceAges,
    ) -> anyhow::Result<Self> {
        if config.mode.auto {
            tracing::info!("--redirect=auto: {}", config.mode.why());
        }
        let mut parts = Parts::open(config, root, netlink, interface_ages.clone())?;
        let nft = Nft::connect().context("opening a netlink socket to the packet filter")?;
        Ok(Self {
            installation: Installation::of(&config.run_dir).context("--run-dir")?,
            kubepods: None,
            cgroup: Cgroup::new(config, &mut parts.object)?,
            parts,
            interface_ages,
            generation: 0,
            conditions: Vec::new(),
            self_check: SelfCheck::new(nft.clone(), take_over),
            reachability: Reachability::new(nft),
        })
    }

    /// Passes the interfaces of pods to `announce` and changes nothing, so that a worker that is about to get connections
    /// has them.
    pub(crate) async fn announce_interfaces(&mut self, announce: impl Fn(Vec<Interface>)) -> anyhow::Result<()> {
        self.kubepods = Kubepods::find(&self.parts.config.kubepods)?;
        announce(self.parts.attachments.expected(&self.parts.find_roles().await?));
        Ok(())
    }

    /// Claims the datapath for this agent: writes the generation, attaches the backstop, and puts the listening sockets
    /// into their slots. The caller runs [`Self::reconcile`] next, which attaches the programs to the interfaces and opens
    /// the fence. Called again when a takeover by another agent has failed.
    ///
    /// # Errors
    /// What this node lacks, and how to provide it. The node stays closed.
    pub(crate) fn claim(&mut self) -> anyhow::Result<()> {
        self.generation = owner::claim(&mut self.parts.object, &self.installation)?;
        self.parts.reopen(self.interface_ages.clone())?;
        let Parts { object, pins, listeners, .. } = &mut self.parts;
        backstop::attach(object, pins).context("attaching the backstop")?;
        object.put_listeners(listeners).context("putting the listeners into their slots")?;
        self.cgroup.forget();
        self.reachability.forget();
        tracing::info!(generation = self.generation, "claimed the datapath of this node");
        Ok(())
    }

    /// Returns whether this agent's claim still holds; asked before each repair.
    pub(crate) fn is_ours(&self) -> anyhow::Result<bool> {
        Ok(owner::generation(&self.parts.object)? == self.generation)
    }

    /// Removes the pins of other layouts, which this agent's pins have replaced.
    pub(crate) fn remove_other_layouts(&self) -> anyhow::Result<()> {
        for other in pins::layouts(&self.parts.root)? {
            if other.folder() != self.parts.pins.folder() {
                other.remove_all()?;
                tracing::info!(pins = %other.folder().display(), "removed the pins of another layout");
            }
        }
        Ok(())
    }

    /// Adapts the datapath to the node as it is now: addresses, uplinks, interfaces, and the fence, which is opened last.
    /// `announce` gets the interfaces before a new one can carry a connection.
    pub(crate) async fn reconcile(&mut self, announce: impl Fn(Vec<Interface>)) {
        let mut conditions = vec![condition(OWNER, Ok(()))];
        conditions.push(condition("kubepods", self.sync_kubepods()));
        let Parts { object, pins, netlink, fence, listeners, config, .. } = &mut self.parts;
        conditions.push(condition("node-addresses", addresses::sync(object, netlink).await));
        conditions.push(condition("cgroup-hooks", self.cgroup.sync(object, pins, self.kubepods.as_ref())));
        conditions.push(condition("listeners", listener::check(listeners, &fence.served(), config.mode)));
        self.reachability.ensure_device(&self.parts).await;
        conditions.extend(self.reconcile_interfaces(announce).await);
        for &family in self.parts.fence.families() {
            let found = self.parts.fence.ensure(family, self.self_check.verdict()).await;
            conditions.push(condition(family.condition(), self.self_check.take_fence(family, found)));
        }
        self.self_check.settle(&conditions);
        self.conditions = conditions;
    }

    /// Attaches the guard to uplinks and the redirect to interfaces of pods.
    async fn reconcile_interfaces(&mut self, announce: impl Fn(Vec<Interface>)) -> Vec<Condition> {
        let roles = match self.parts.find_roles().await {
            Ok(roles) => roles,
            Err(error) => return vec![condition("interfaces", Err(error))],
        };
        let Parts { object, pins, guard, attachments, .. } = &mut self.parts;
        let conditions = vec![
            condition("guard", guard.sync(object, pins, &roles)),
            condition("interfaces", attachments.sync(object, pins, &roles, announce)),
        ];
        self.parts.roles = roles;
        conditions
    }

    /// Passes the kubepods cgroup to the programs; the kubelet may have created or replaced it since the last call.
    fn sync_kubepods(&mut self) -> anyhow::Result<()> {
        let found = Kubepods::find(&self.parts.config.kubepods)?;
        self.parts.object.configure(|config| config.kubepods = found.as_ref().map_or(0, Kubepods::id))?;
        if self.kubepods != found {
            match &found {
                Some(kubepods) => {
                    tracing::info!(path = %kubepods.path().display(), "identifying pods by their cgroups");
                }
                None => tracing::info!("no kubepods cgroup found: pods cannot be identified by their cgroups"),
            }
        }
        self.kubepods = found;
        if self.kubepods.is_none() && self.parts.config.attestation == Attestation::Require {
            bail!(
                "there is no kubepods cgroup in the version 2 hierarchy (--kubepods-cgroup), and --attestation=require \
                 serves no pod without it"
            );
        }
        Ok(())
    }

    /// Checks what no kernel event announces, and what is too costly to check at each event. Runs after a first
    /// [`Self::reconcile`], which closes the node, and before another one, which repairs.
    pub(crate) async fn self_check(&mut self) {
        let mut fences = self.parts.fence.families().iter().map(|family| family.condition());
        let closed = fences.all(|name| self.holds(name));
        self.self_check.run(&mut self.parts, closed).await;
    }

    /// Sends a probe in each family that is served. Runs after [`Self::reconcile`], which sets up its path.
    pub(crate) async fn probe(&mut self) {
        self.reachability.probe(&mut self.parts).await;
    }

    fn holds(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| condition.name == name && condition.problem.is_none())
    }

    /// Returns the listening sockets.
    pub(crate) fn listeners(&self) -> &[TcpListener] {
        &self.parts.listeners
    }

    /// Returns the pins.
    pub(crate) fn pins(&self) -> &Pins {
        &self.parts.pins
    }

    /// Returns the kubepods cgroup, as of the last [`Self::reconcile`].
    pub(crate) fn kubepods(&self) -> Option<&Kubepods> {
        self.kubepods.as_ref()
    }

    /// Returns whether the last [`Self::reconcile`] could set up everything.
    pub(crate) fn is_reconciled(&self) -> bool {
        self.conditions.iter().all(|condition| condition.problem.is_none())
    }

    /// Returns the conditions of readiness, as of the last [`Self::reconcile`], [`Self::self_check`] and [`Self::probe`].
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().chain(self.self_check.conditions()).chain(self.reachability.condition())
    }

    /// Returns the warnings that do not affect readiness.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.self_check.notices().iter().chain(self.reachability.notice()).cloned().collect()
    }

    /// Returns how often each kind of object was lost and set up again.
    pub(crate) fn repairs(&self) -> BTreeMap<String, u64> {
        self.self_check.repairs()
    }

    /// Returns the results of the last probes, by family.
    pub(crate) fn probes(&self) -> &[ProbeResult] {
        self.reachability.results()
    }

    /// Returns the packets to the IMDS so far, by interface and reason.
    pub(crate) fn packets(&self) -> Vec<PacketCount> {
        report::counters::read(&self.parts.object, &self.parts.attachments)
    }

    /// Returns the state of the datapath for `kiam-agent status`, as of the last [`Self::reconcile`].
    pub(crate) fn report(&self) -> DatapathReport {
        report::report(self)
    }
}

/// Closes a node that no backstop of an earlier agent guards, before anything else can fail.
pub(crate) async fn close_unguarded(bpffs: &Path) -> anyhow::Result<()> {
    if pins::root(bpffs).and_then(|root| Ok(pins::layouts(&root)?)).is_ok_and(|all| all.iter().any(Pins::has_backstop))
    {
        return Ok(());
    }
    let fence = Fence::new(netlink::connect()?);
    // `local` without the backstop would deliver pods' packets to any process that listens on the node.
    for &family in fence.families() {
        fence.ensure(family, Verdict::Blackhole).await.context("setting up the fence")?;
    }
    Ok(())
}

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
pub(crate) mod programs;
pub(crate) mod redirect;
mod report;
mod self_check;

use crate::{
    config::{Attestation, DatapathConfig},
    report::{Condition, Interface, PacketCount, condition},
};
use anyhow::{Context as _, bail};
use fence::{Fence, Verdict};
use foreign::netfilter::nft::Nft;
use guard::Guard;
use node::{addresses, devices, interface_ages::InterfaceAges, kubepods::Kubepods, netlink, roles::Roles};
use ownership::owner::{self, Installation};
use programs::{
    backstop,
    object::Object,
    pins::{self, Pins},
    tc,
};
use redirect::{cgroup::Cgroup, connection_records::Flows, interfaces::Attachments, listener};
use self_check::{Check, reachability::Reachability};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

/// The condition that this agent is the one that serves the node.
pub(crate) const OWNER: &str = "owner";

pub(crate) use report::inventory::inventory;

/// The datapath of this node, as one agent holds it. Dropping it leaves everything pinned and closed.
pub(crate) struct Datapath {
    config: DatapathConfig,
    installation: Installation,
    root: PathBuf,
    pins: Pins,
    object: Object,
    fence: Fence,
    guard: Guard,
    kubepods: Option<Kubepods>,
    cgroup: Cgroup,
    attachments: Attachments,
    interface_ages: InterfaceAges,
    listeners: Vec<TcpListener>,
    netlink: rtnetlink::Handle,
    /// Of this agent's claim; 0 until it has made one.
    generation: u64,
    /// As of the last [`Self::reconcile`].
    roles: Roles,
    conditions: Vec<Condition>,
    check: Check,
    reachability: Reachability,
}

impl Datapath {
    /// Everything but what another agent of this node would notice: programs and maps are loaded, the listening sockets
    /// are open.
    ///
    /// # Errors
    /// What is missing on this node, and what to do.
    pub(crate) async fn open(
        config: &DatapathConfig,
        root: &Path,
        take_over: bool,
        netlink: rtnetlink::Handle,
        interface_ages: InterfaceAges,
    ) -> anyhow::Result<Self> {
        let fence = Fence::new(netlink.clone());
        let pins = Pins::open(root)?;
        let mut object = Object::load(root, &pins).context("loading the eBPF programs")?;
        if config.mode.auto {
            tracing::info!("--redirect=auto: {}", config.mode.why());
        }
        let cgroup = Cgroup::new(config, &mut object)?;
        let listeners = listener::open_all(&fence.served(), config.mode).context("opening the listening sockets")?;
        let hook = tc::Hook::new(config.tc);
        let flows = Flows::open(&pins)?;
        let nft = Nft::connect().context("opening a netlink socket to the packet filter")?;
        Ok(Self {
            installation: Installation::of(&config.run_dir).context("--run-dir")?,
            root: root.to_owned(),
            pins,
            object,
            fence,
            guard: Guard::new(hook),
            kubepods: None,
            cgroup,
            attachments: Attachments::new(hook, interface_ages.clone(), flows),
            interface_ages,
            listeners,
            netlink,
            generation: 0,
            roles: Roles::default(),
            conditions: Vec::new(),
            check: Check::new(nft.clone(), take_over),
            reachability: Reachability::new(nft),
            config: config.clone(),
        })
    }

    /// Looks at the node as [`Self::reconcile`] does, and changes nothing: so that a worker that is about to get connections
    /// knows where they come from.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn announce_interfaces(&mut self, announce: impl Fn(Vec<Interface>)) -> anyhow::Result<()> {
        self.kubepods = Kubepods::find(&self.config.kubepods)?;
        announce(self.attachments.expected(&self.find_roles().await?));
        Ok(())
    }

    /// Makes the datapath this agent's: claims it, then backstop, and listeners in their slots. The interfaces and the
    /// opening of the fence are [`Self::reconcile`]'s, which the caller runs next, and again at each event. Once more after
    /// another agent has tried in vain.
    ///
    /// # Errors
    /// What is missing on this node, and what to do. The node stays closed.
    pub(crate) fn claim(&mut self) -> anyhow::Result<()> {
        self.generation = owner::claim(&mut self.object, &self.installation)?;
        self.pins = Pins::open(&self.root)?;
        self.object.pin_missing(&self.pins)?;
        backstop::attach(&mut self.object, &self.pins).context("attaching the backstop")?;
        self.object.put_listeners(&self.listeners).context("putting the listening sockets into their slots")?;
        // Whatever is on the interfaces and on the cgroup may be another agent's.
        let hook = tc::Hook::new(self.config.tc);
        self.cgroup.forget();
        self.guard = Guard::new(hook);
        self.attachments = Attachments::new(hook, self.interface_ages.clone(), Flows::open(&self.pins)?);
        self.reachability.forget();
        tracing::info!(generation = self.generation, "the datapath of this node is this agent's");
        Ok(())
    }

    /// Whether the datapath is still this agent's: asked before each repair.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn is_ours(&self) -> anyhow::Result<bool> {
        Ok(owner::generation(&self.object)? == self.generation)
    }

    /// Removes the pins of other layouts, whose place ours have taken.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn remove_other_layouts(&self) -> anyhow::Result<()> {
        for other in pins::layouts(&self.root)? {
            if other.folder() != self.pins.folder() {
                other.remove_all()?;
                tracing::info!(pins = %other.folder().display(), "removed: another layout's");
            }
        }
        Ok(())
    }

    /// The listening sockets.
    pub(crate) fn listeners(&self) -> &[TcpListener] {
        &self.listeners
    }

    /// Brings the datapath to what the node looks like now: addresses, uplinks, interfaces, then the fence, which is
    /// opened once all else stands. `announce` gets the interfaces before a new one can carry a connection.
    pub(crate) async fn reconcile(&mut self, announce: impl Fn(Vec<Interface>)) {
        let mut conditions = vec![condition(OWNER, Ok(()))];
        conditions.push(condition("kubepods", self.sync_kubepods()));
        let addresses = addresses::sync(&mut self.object, &self.netlink).await;
        conditions.push(condition("node-addresses", addresses));
        let hooks = self.cgroup.sync(&mut self.object, &self.pins, self.kubepods.as_ref());
        conditions.push(condition("cgroup-hooks", hooks));
        let listeners = listener::check(&self.listeners, &self.fence.served(), self.config.mode);
        conditions.push(condition("listeners", listeners));
        self.ensure_probe_device().await;
        match self.find_roles().await {
            Ok(roles) => {
                let guard = self.guard.sync(&mut self.object, &self.pins, &roles);
                conditions.push(condition("guard", guard));
                let interfaces = self.attachments.sync(&mut self.object, &self.pins, &roles, announce);
                conditions.push(condition("interfaces", interfaces));
                self.roles = roles;
            }
            Err(error) => conditions.push(condition("interfaces", Err(error))),
        }
        for &family in self.fence.families() {
            let found = self.fence.ensure(family, self.check.verdict()).await;
            conditions.push(condition(family.condition(), self.check.take_fence(family, found)));
        }
        self.check.settle(&conditions);
        self.conditions = conditions;
    }

    /// Tells the programs below which cgroup pods are; the kubelet may have made it since, or made it anew.
    fn sync_kubepods(&mut self) -> anyhow::Result<()> {
        let found = Kubepods::find(&self.config.kubepods)?;
        self.object.configure(|config| config.kubepods = found.as_ref().map_or(0, Kubepods::id))?;
        if self.kubepods != found {
            match &found {
                Some(kubepods) => tracing::info!(path = %kubepods.path().display(), "pods are known by their cgroups"),
                None => tracing::info!("pods have no cgroups that the kernel programs know"),
            }
        }
        self.kubepods = found;
        if self.kubepods.is_none() && self.config.attestation == Attestation::Require {
            bail!(
                "there is no kubepods cgroup in the version 2 hierarchy (--kubepods-cgroup), and --attestation=require \
                 serves no pod without it"
            );
        }
        Ok(())
    }

    async fn find_roles(&self) -> anyhow::Result<Roles> {
        let devices = devices::devices(&self.netlink).await.context("listing the interfaces")?;
        let gateways = devices::with_gateway(&self.netlink, self.fence.families()).await;
        let mut roles = Roles::of(&devices, &self.config.interfaces, &gateways.context("listing the routes")?);
        if !self.config.mode.tc {
            roles.pod_sides.clear();
        }
        Ok(roles)
    }

    /// The pins.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Below which cgroup pods are, as of the last [`Self::reconcile`].
    pub(crate) fn kubepods(&self) -> Option<&Kubepods> {
        self.kubepods.as_ref()
    }

    /// Whether everything could be set up, as of the last [`Self::reconcile`].
    pub(crate) fn is_reconciled(&self) -> bool {
        self.conditions.iter().all(|condition| condition.problem.is_none())
    }

    /// What must hold, as of the last [`Self::reconcile`], [`Self::self_check`] and [`Self::probe`].
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().chain(self.check.conditions()).chain(self.reachability.condition())
    }

    /// The packets to M so far, by interface and reason.
    pub(crate) fn packets(&self) -> Vec<PacketCount> {
        report::counters::read(&self.object, &self.attachments)
    }
}

/// Closes a node that no agent's backstop guards yet, before anything else can go wrong.
///
/// # Errors
/// The kernel's.
pub(crate) async fn close_unguarded(bpffs: &Path) -> anyhow::Result<()> {
    if pins::root(bpffs).and_then(|root| Ok(pins::layouts(&root)?)).is_ok_and(|all| all.iter().any(Pins::has_backstop))
    {
        return Ok(());
    }
    let fence = Fence::new(netlink::connect()?);
    // `local` without the backstop would hand pods' packets to whatever listens on the node.
    for &family in fence.families() {
        fence.ensure(family, Verdict::Blackhole).await.context("setting up the fence")?;
    }
    Ok(())
}

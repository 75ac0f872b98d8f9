//! The datapath: from a pod's SYN to M to the agent's listening socket, and nothing to anybody when no agent listens.
//!
//! Reading order: [`pins`] (what outlives the process), [`listener`], [`object`] (the eBPF programs), [`backstop`],
//! [`links`], [`roles`], [`births`], [`addresses`] and [`kubepods`] (what the node looks like), [`tc`] (a program on an
//! interface), [`interfaces`] (the redirect), [`guard`], [`fence`] (policy routing), [`flows`] (who opened a connection),
//! [`foreign_nat`] (what others left), [`counters`], [`cleanup`]. This module is their order: start, keep up, stop.

pub(crate) mod addresses;
pub(crate) mod backstop;
pub(crate) mod births;
pub(crate) mod cleanup;
pub(crate) mod counters;
pub(crate) mod fence;
pub(crate) mod flows;
pub(crate) mod foreign_nat;
pub(crate) mod guard;
pub(crate) mod interfaces;
pub(crate) mod kubepods;
pub(crate) mod links;
pub(crate) mod listener;
mod log;
mod netfilter;
pub(crate) mod netlink;
pub(crate) mod object;
pub(crate) mod pattern;
pub(crate) mod pins;
pub(crate) mod roles;
pub(crate) mod tc;

use crate::{
    config::RedirectConfig,
    handoff::{Condition, Interface, PacketCount},
};
use anyhow::Context as _;
use births::Births;
use fence::{Fence, Verdict};
use flows::Flows;
use foreign_nat::ForeignNat;
use guard::Guard;
use interfaces::Attachments;
use kubepods::{Kubepods, KubepodsAt};
use object::Object;
use pattern::InterfaceMatch;
use pins::Pins;
use roles::Roles;
use std::net::TcpListener;

/// The datapath of this node, from start to the end of the process. Dropping it leaves everything pinned and closed.
pub(crate) struct Redirect {
    object: Object,
    pins: Pins,
    fence: Fence,
    pattern: InterfaceMatch,
    guard: Guard,
    kubepods_at: KubepodsAt,
    kubepods: Option<Kubepods>,
    attachments: Attachments,
    listeners: Vec<TcpListener>,
    netlink: rtnetlink::Handle,
    conditions: Vec<Condition>,
    foreign_nat: ForeignNat,
    /// What is looked at every few seconds only.
    inspected: Vec<Condition>,
}

impl Redirect {
    /// Closed first, open last: the fence drops, then maps, backstop, listeners in their slots; the interfaces and the
    /// opening of the fence are [`Self::keep_up`]'s, which the caller runs next, and again at each event.
    ///
    /// # Errors
    /// What is missing on this node, and what to do. The fence stays: closed.
    pub(crate) async fn start(
        config: &RedirectConfig,
        take_over: bool,
        netlink: rtnetlink::Handle,
        births: Births,
    ) -> anyhow::Result<Self> {
        let fence = Fence::new(netlink.clone());
        if !Pins::at(&config.bpffs).is_ok_and(|pins| pins.has_backstop()) {
            // `local` without the backstop would hand pods' packets to whatever listens on the node.
            for &family in fence.families() {
                fence.ensure(family, Verdict::Blackhole).await.context("setting up the fence")?;
            }
        }
        let pins = Pins::open(&config.bpffs)?;
        let mut object = Object::load(&pins).context("loading the eBPF programs")?;
        backstop::attach(&mut object, &pins).context("attaching the backstop")?;
        let listeners = listener::open_all(&fence.served()).context("opening the listening sockets")?;
        object.put_listeners(&listeners).context("putting the listening sockets into their slots")?;
        let hook = tc::Hook::new(config.tc);
        let flows = Flows::open(&pins)?;
        Ok(Self {
            object,
            pins,
            fence,
            pattern: config.interfaces.clone(),
            guard: Guard::new(hook),
            kubepods_at: config.kubepods.clone(),
            kubepods: None,
            attachments: Attachments::new(hook, births, flows),
            listeners,
            netlink,
            conditions: Vec::new(),
            foreign_nat: ForeignNat::new(take_over).context("opening a netlink socket to the packet filter")?,
            inspected: Vec::new(),
        })
    }

    /// The listening sockets, one a family.
    pub(crate) fn listeners(&self) -> &[TcpListener] {
        &self.listeners
    }

    /// Brings the datapath to what the node looks like now: addresses, uplinks, interfaces, then the fence, which is
    /// opened once all else stands. `announce` gets the interfaces before a new one can carry a connection.
    pub(crate) async fn keep_up(&mut self, announce: impl Fn(Vec<Interface>)) {
        let mut conditions = Vec::new();
        conditions.push(condition("kubepods", self.sync_kubepods()));
        let addresses = addresses::sync(&mut self.object, &self.netlink).await;
        conditions.push(condition("node-addresses", addresses));
        match self.roles().await {
            Ok(roles) => {
                let guard = self.guard.sync(&mut self.object, &self.pins, &roles);
                conditions.push(condition("guard", guard));
                let interfaces = self.attachments.sync(&mut self.object, &self.pins, &roles, announce);
                conditions.push(condition("interfaces", interfaces));
            }
            Err(error) => conditions.push(condition("interfaces", Err(error))),
        }
        for &family in self.fence.families() {
            let fence = self.fence.ensure(family, Verdict::Local).await;
            conditions.push(condition(family.condition(), fence));
        }
        self.conditions = conditions;
    }

    /// Tells the programs below which cgroup pods are; the kubelet may have made it since, or made it anew.
    fn sync_kubepods(&mut self) -> anyhow::Result<()> {
        let found = Kubepods::find(&self.kubepods_at)?;
        self.object.configure(|config| config.kubepods = found.as_ref().map_or(0, Kubepods::id))?;
        if self.kubepods != found {
            match &found {
                Some(kubepods) => tracing::info!(path = %kubepods.path().display(), "pods are known by their cgroups"),
                None => tracing::info!("pods have no cgroups that the kernel programs know"),
            }
        }
        self.kubepods = found;
        Ok(())
    }

    async fn roles(&self) -> anyhow::Result<Roles> {
        let devices = links::devices(&self.netlink).await.context("listing the interfaces")?;
        let gateways = links::with_gateway(&self.netlink, self.fence.families()).await;
        Ok(Roles::of(&devices, &self.pattern, &gateways.context("listing the routes")?))
    }

    /// The pins.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Below which cgroup pods are, as of the last [`Self::keep_up`].
    pub(crate) fn kubepods(&self) -> Option<&Kubepods> {
        self.kubepods.as_ref()
    }

    /// Looks at what the kernel does not tell of by itself, or what would be too dear to look at with each piece of
    /// news. After [`Self::keep_up`], which closes the node.
    pub(crate) async fn inspect(&mut self) {
        let mut fences = self.fence.families().iter().map(|family| family.condition());
        let closed = fences.all(|name| self.holds(name));
        self.inspected = vec![condition("foreign-nat", self.foreign_nat.check(closed).await)];
    }

    fn holds(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| condition.name == name && condition.problem.is_none())
    }

    /// What must hold, as of the last [`Self::keep_up`] and the last [`Self::inspect`].
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().chain(&self.inspected)
    }

    /// The packets to M so far, by interface and reason.
    pub(crate) fn packets(&self) -> Vec<PacketCount> {
        counters::read(&self.object, &self.attachments)
    }
}

fn condition(name: &str, result: anyhow::Result<()>) -> Condition {
    Condition { name: name.to_owned(), problem: result.err().map(|error| format!("{error:#}")) }
}

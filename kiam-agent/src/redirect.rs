//! The datapath: from a pod's SYN to M to the agent's listening socket, and nothing to anybody when no agent listens.
//!
//! Reading order: [`pins`] (what outlives the process), [`listener`], [`object`] (the eBPF programs), [`backstop`],
//! [`tc`] (the program on each interface), [`births`], [`interfaces`] and [`addresses`] (what the node looks like), [`fence`]
//! (policy routing), [`counters`], [`cleanup`]. This module is their order: start, keep up, stop.

pub(crate) mod addresses;
pub(crate) mod backstop;
pub(crate) mod births;
pub(crate) mod cleanup;
pub(crate) mod counters;
pub(crate) mod fence;
pub(crate) mod interfaces;
pub(crate) mod listener;
mod log;
pub(crate) mod netlink;
pub(crate) mod object;
pub(crate) mod pattern;
pub(crate) mod pins;
pub(crate) mod tc;

use crate::{
    config::RedirectConfig,
    handoff::{Condition, Interface, PacketCount},
};
use anyhow::Context as _;
use births::Births;
use fence::{Fence, Verdict};
use interfaces::Attachments;
use object::Object;
use pins::Pins;
use std::net::TcpListener;

/// The datapath of this node, from start to the end of the process. Dropping it leaves everything pinned and closed.
pub(crate) struct Redirect {
    object: Object,
    pins: Pins,
    fence: Fence,
    attachments: Attachments,
    listeners: Vec<TcpListener>,
    netlink: rtnetlink::Handle,
    conditions: Vec<Condition>,
}

impl Redirect {
    /// Closed first, open last: the fence drops, then maps, backstop, listeners in their slots; the interfaces and the
    /// opening of the fence are [`Self::keep_up`]'s, which the caller runs next, and again at each event.
    ///
    /// # Errors
    /// What is missing on this node, and what to do. The fence stays: closed.
    pub(crate) async fn start(
        config: &RedirectConfig,
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
        let attachments = Attachments::new(config.interfaces.clone(), tc::Hook::new(config.tc), births);
        Ok(Self { object, pins, fence, attachments, listeners, netlink, conditions: Vec::new() })
    }

    /// The listening sockets, one a family.
    pub(crate) fn listeners(&self) -> &[TcpListener] {
        &self.listeners
    }

    /// Brings the datapath to what the node looks like now: addresses, interfaces, then the fence, which is opened
    /// once all else stands. `announce` gets the interfaces before a new one can carry a connection.
    pub(crate) async fn keep_up(&mut self, announce: impl Fn(Vec<Interface>)) {
        let mut conditions = Vec::new();
        let addresses = addresses::sync(&mut self.object, &self.netlink).await;
        conditions.push(condition("node-addresses", addresses));
        let interfaces = self.attachments.sync(&mut self.object, &self.pins, &self.netlink, announce).await;
        conditions.push(condition("interfaces", interfaces));
        for &family in self.fence.families() {
            let fence = self.fence.ensure(family, Verdict::Local).await;
            conditions.push(condition(family.condition(), fence));
        }
        self.conditions = conditions;
    }

    /// What must hold, as of the last [`Self::keep_up`].
    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The packets to M so far, by interface and reason.
    pub(crate) fn packets(&self) -> Vec<PacketCount> {
        counters::read(&self.object, &self.attachments)
    }
}

fn condition(name: &str, result: anyhow::Result<()>) -> Condition {
    Condition { name: name.to_owned(), problem: result.err().map(|error| format!("{error:#}")) }
}

//! The fence: policy routing that makes each packet to M that arrives by an interface local, or nothing. It is what
//! `bpf_sk_assign` needs, and it is what keeps pods from the real metadata service when no program is attached and no
//! agent runs. The node's own packets to M keep their way.
//!
//! ```text
//! 5:  iif lo to M goto 7        the node's own packets: on to whatever rules the node has
//! 6:  to M lookup 4242          all others: `blackhole M`, or `local M dev lo` once the backstop is attached
//! 7:  nop
//! ```

mod route;
mod rule;

pub(crate) use super::node::family::{Family, TABLE};

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use netlink_packet_route::{
    route::{RouteMessage, RouteProtocol},
    rule::{RuleAttribute, RuleMessage},
};
use rtnetlink::Handle;
use std::{fs, path::Path};

/// Priorities: ahead of the rules of the VPC CNI (10, 20) and of Cilium (9 and up).
const PREF_OWN: u32 = 5;
const PREF_ALL: u32 = 6;
const PREF_END: u32 = 7;
/// Marks rules and routes as ours (`RTPROT_…`, include/uapi/linux/rtnetlink.h: free for user space above 4).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xe2);
/// Marks those that `deploy/boot/kiam-fence.service` sets when the node boots. They are the same but for this.
const PROTOCOL_BOOT: RouteProtocol = RouteProtocol::Other(0xe3);

/// What the route in our table does with a packet to M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Drop it.
    Blackhole,
    /// Deliver it to the socket that it carries.
    Local,
}

/// What a family's fence was found to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The preferences of the rules that were missing.
    pub(crate) rules: Vec<u32>,
    /// The route was missing, or did something else.
    pub(crate) route: bool,
    /// The rules of others that come before it.
    pub(crate) ahead: Vec<String>,
}

impl Found {
    /// That nothing comes before it.
    pub(crate) fn ensure_first(&self) -> anyhow::Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        bail!("rules come before the fence, and pods' packets may go by them: {}", self.ahead.join("; "))
    }
}

/// What a family's fence is, as somebody finds it who only looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FenceState {
    /// Those of our rules that stand.
    pub(crate) rules: Vec<RuleState>,
    /// What the route in our table does, if it is there.
    pub(crate) verdict: Option<Verdict>,
    /// The rules of others that come before it.
    pub(crate) ahead: Vec<String>,
}

/// One of our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleState {
    /// Its preference.
    pub(crate) preference: u32,
    /// It was set when the node booted, and not by an agent.
    pub(crate) at_boot: bool,
}

/// The rules and routes of this node for M.
pub(crate) struct Fence {
    netlink: Handle,
    families: Vec<Family>,
}

impl Fence {
    /// A handle on the fence; nothing is changed. A kernel without IPv6 needs no IPv6 fence.
    pub(crate) fn new(netlink: Handle) -> Self {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let families = Family::ALL.into_iter().filter(|&family| family == Family::V4 || ipv6).collect();
        Self { netlink, families }
    }

    /// The families that this kernel has.
    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }

    /// The families that M can be served in: with IPv6 switched off on `lo` the kernel refuses a local route there, and
    /// IPv6 stays closed.
    pub(crate) fn served(&self) -> Vec<Family> {
        self.families.iter().copied().filter(|&family| possible(family, Verdict::Local) == Verdict::Local).collect()
    }

    /// Sets up what is missing in one family. In this order: the node's own way first, so that it never loses the
    /// metadata service; the route before the rule that leads to it, so that a lookup never falls through.
    pub(crate) async fn ensure(&self, family: Family, verdict: Verdict) -> anyhow::Result<Found> {
        let present = self.rules(family).await?;
        let mut found = Found::default();
        self.ensure_rule(&present, rule::end(family), &mut found).await?;
        self.ensure_rule(&present, rule::own(family), &mut found).await?;
        found.route = self.ensure_route(family, possible(family, verdict)).await?;
        self.ensure_rule(&present, rule::all(family), &mut found).await?;
        found.ahead = rule::ahead(&present, family);
        Ok(found)
    }

    /// Takes everything down, in reverse; what is not there is fine.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        for &family in &self.families {
            let present = self.rules(family).await?;
            self.remove_rule(&present, &rule::all(family)).await?;
            if let Some(route) = self.route(family).await? {
                let removed = self.netlink.route().del(route).execute().await;
                removed.with_context(|| format!("removing the route to {} in table {TABLE}", family.imds()))?;
            }
            self.remove_rule(&present, &rule::own(family)).await?;
            self.remove_rule(&present, &rule::end(family)).await?;
        }
        Ok(())
    }

    /// Whether the boot unit has set rules since the node booted.
    pub(crate) async fn was_set_at_boot(&self) -> anyhow::Result<bool> {
        let mark = RuleAttribute::Protocol(PROTOCOL_BOOT);
        for &family in &self.families {
            if self.rules(family).await?.iter().any(|rule| rule.attributes.contains(&mark)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What stands of a family's fence; nothing is changed.
    pub(crate) async fn inventory(&self, family: Family) -> anyhow::Result<FenceState> {
        let present = self.rules(family).await?;
        let ours = [rule::own(family), rule::all(family), rule::end(family)];
        let found = ours.iter().filter_map(|ours| present.iter().find(|rule| rule::is_same(rule, ours)));
        let rules = found.map(|rule| RuleState {
            preference: rule::preference(rule),
            at_boot: rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL_BOOT)),
        });
        Ok(FenceState {
            rules: rules.collect(),
            verdict: self.route(family).await?.and_then(|route| route::verdict(&route)),
            ahead: rule::ahead(&present, family),
        })
    }

    async fn rules(&self, family: Family) -> anyhow::Result<Vec<RuleMessage>> {
        let rules = self.netlink.rule().get(family.ip_version()).execute().try_collect().await;
        rules.with_context(|| format!("listing the {} rules", family.name()))
    }

    async fn ensure_rule(&self, present: &[RuleMessage], ours: RuleMessage, found: &mut Found) -> anyhow::Result<()> {
        if present.iter().any(|rule| rule::is_same(rule, &ours)) {
            return Ok(());
        }
        let preference = rule::preference(&ours);
        let mut request = self.netlink.rule().add();
        *request.message_mut() = ours;
        request.execute().await.with_context(|| format!("adding the rule at pref {preference}"))?;
        found.rules.push(preference);
        Ok(())
    }

    async fn remove_rule(&self, present: &[RuleMessage], ours: &RuleMessage) -> anyhow::Result<()> {
        for rule in present.iter().filter(|rule| rule::is_same(rule, ours)) {
            let removed = self.netlink.rule().del(rule.clone()).execute().await;
            removed.with_context(|| format!("removing the rule at pref {}", rule::preference(ours)))?;
        }
        Ok(())
    }

    /// What our table holds for M.
    async fn route(&self, family: Family) -> anyhow::Result<Option<RouteMessage>> {
        let routes = self.netlink.route().get(route::query(family)).execute();
        let found = routes.try_filter(|route| std::future::ready(route::is_ours(route, family))).try_collect().await;
        let found: Vec<RouteMessage> = found.with_context(|| format!("listing the {} routes", family.name()))?;
        Ok(found.into_iter().next())
    }

    async fn ensure_route(&self, family: Family, verdict: Verdict) -> anyhow::Result<bool> {
        if self.route(family).await?.is_some_and(|route| route::does(&route, verdict)) {
            return Ok(false);
        }
        // One replacement: there is no moment without a route.
        let replaced = self.netlink.route().add(route::new(family, verdict)).replace().execute().await;
        replaced.with_context(|| format!("routing {} in table {TABLE} ({verdict:?})", family.imds()))?;
        Ok(true)
    }
}

fn possible(family: Family, verdict: Verdict) -> Verdict {
    let off = || fs::read("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.starts_with(b"1"));
    if family == Family::V6 && off() { Verdict::Blackhole } else { verdict }
}

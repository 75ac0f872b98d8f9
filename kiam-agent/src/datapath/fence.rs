//! The fence: policy routing that delivers locally, or drops, each packet to the IMDS that arrives by an interface.
//! `bpf_sk_assign` requires local delivery, and the fence keeps pods from the real IMDS when no program is attached and
//! no agent runs. The node's own packets to the IMDS are routed as without it.
//!
//! ```text
//! 5:  iif lo to IMDS goto 7     the node's own packets: continue with the node's other rules
//! 6:  to IMDS lookup 4242       all others: `blackhole IMDS`, or `local IMDS dev lo` once the backstop is attached
//! 7:  nop
//! ```
//!
//! [`rule`] and [`route`] contain the netlink messages.

mod route;
mod rule;

use super::node::family::{Family, TABLE};
use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use netlink_packet_route::{
    route::{RouteMessage, RouteProtocol},
    rule::{RuleAttribute, RuleMessage},
};
use rtnetlink::Handle;
use std::{fs, path::Path};

/// Preferences of our rules: before those of the VPC CNI (10, 20) and of Cilium (9 and up).
const PREF_OWN: u32 = 5;
const PREF_ALL: u32 = 6;
const PREF_END: u32 = 7;
/// Mark of our rules and routes (`RTPROT_…`, include/uapi/linux/rtnetlink.h: free for user space above 4).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xe2);
/// Mark of the rules and routes that `deploy/boot/kiam-fence.service` sets when the node boots; otherwise they are the
/// same.
const PROTOCOL_BOOT: RouteProtocol = RouteProtocol::Other(0xe3);

/// Action of the route in our table on a packet to the IMDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Drops the packet.
    Blackhole,
    /// Delivers the packet to the socket that is assigned to it.
    Local,
}

/// Deviations that were found in the fence of a family.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Preferences of the rules that were missing.
    pub(crate) rules: Vec<u32>,
    /// True if the route was missing, or had another action.
    pub(crate) route: bool,
    /// Rules of others that come before it.
    pub(crate) ahead: Vec<String>,
}

impl Found {
    /// Returns an error that names the rules of others that come before the fence, if there are any.
    pub(crate) fn ensure_first(&self) -> anyhow::Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        bail!("rules come before the fence, and may route pods' packets to the real IMDS: {}", self.ahead.join("; "))
    }
}

/// State of a family's fence, as an observer finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FenceState {
    /// Those of our rules that exist.
    pub(crate) rules: Vec<RuleState>,
    /// Action of the route in our table, if it exists.
    pub(crate) verdict: Option<Verdict>,
    /// Rules of others that come before it.
    pub(crate) ahead: Vec<String>,
}

/// One of our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleState {
    /// Preference.
    pub(crate) preference: u32,
    /// True if the boot unit set it, and not an agent.
    pub(crate) at_boot: bool,
}

/// The rules and routes of this node for the IMDS.
pub(crate) struct Fence {
    netlink: Handle,
    families: Vec<Family>,
}

impl Fence {
    /// Creates a handle and changes nothing. A kernel without IPv6 needs no fence for IPv6.
    pub(crate) fn new(netlink: Handle) -> Self {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let families = Family::ALL.into_iter().filter(|&family| family == Family::V4 || ipv6).collect();
        Self { netlink, families }
    }

    /// Returns the families that this kernel has.
    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }

    /// Returns the families in which pods can be served: if IPv6 is off on `lo`, the kernel refuses a local route, and
    /// IPv6 stays closed.
    pub(crate) fn served(&self) -> Vec<Family> {
        self.families.iter().copied().filter(|&family| possible(family, Verdict::Local) == Verdict::Local).collect()
    }

    /// Sets up what is missing in one family. The rules for the node's own packets come first, so that the node never
    /// loses the IMDS; the route comes before the rule that leads to it, so that no lookup continues with later rules.
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

    /// Removes everything in reverse order, whether complete or not.
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

    /// Returns whether the boot unit has set rules since the node booted.
    pub(crate) async fn was_set_at_boot(&self) -> anyhow::Result<bool> {
        let mark = RuleAttribute::Protocol(PROTOCOL_BOOT);
        for &family in &self.families {
            if self.rules(family).await?.iter().any(|rule| rule.attributes.contains(&mark)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the state of a family's fence, and changes nothing.
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

    /// Returns the route to the IMDS in our table.
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
        // A single replacement, without a moment in which there is no route.
        let replaced = self.netlink.route().add(route::new(family, verdict)).replace().execute().await;
        replaced.with_context(|| format!("routing {} in table {TABLE} ({verdict:?})", family.imds()))?;
        Ok(true)
    }
}

fn possible(family: Family, verdict: Verdict) -> Verdict {
    let off = || fs::read("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.starts_with(b"1"));
    if family == Family::V6 && off() { Verdict::Blackhole } else { verdict }
}

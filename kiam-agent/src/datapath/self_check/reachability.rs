//! Whether pods' connections get in to the listening sockets: a probe tells; and when it is lost, the packet filter is
//! searched for what may have dropped it.

use super::probe::{self, Probe, ProbeTarget};
use crate::{
    datapath::{
        Datapath,
        foreign::{
            netfilter::nft::Nft,
            suspects::{self, Suspect},
        },
        node::family::Family,
    },
    report::{Condition, Notice, ProbeResult, condition},
};
use anyhow::{anyhow, bail, ensure};
use std::collections::BTreeSet;

/// Suspects that are named; firewalls with more of them are looked at by hand.
const SUSPECTS_MAX: usize = 8;

/// What is known of the way in.
pub(crate) struct Reachability {
    nft: Option<Nft>,
    device: anyhow::Result<()>,
    probe: Probe,
    results: Vec<ProbeResult>,
    condition: Option<Condition>,
    notice: Option<Notice>,
}

impl Reachability {
    /// Nothing is known yet.
    pub(crate) fn new(nft: Option<Nft>) -> Self {
        Self { nft, device: Ok(()), probe: Probe::default(), results: Vec::new(), condition: None, notice: None }
    }

    /// The interface, the programs or the maps may be others from now on.
    pub(crate) fn forget(&mut self) {
        self.probe.forget();
    }

    /// Whether answers to probes are watched for on this interface.
    pub(crate) fn watches(&self, index: u32) -> bool {
        self.probe.watches(index)
    }

    /// That probes are answered, if they can be sent.
    pub(crate) const fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// That probes cannot be sent.
    pub(crate) const fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }
}

impl Datapath {
    /// The last probes, by family.
    pub(crate) fn probes(&self) -> &[ProbeResult] {
        &self.reachability.results
    }

    /// Makes the probe's interface, or removes that of an agent that had another `--redirect`.
    pub(crate) async fn ensure_probe_device(&mut self) {
        self.reachability.device = match self.config.mode.tc {
            true => probe::ensure_device(&self.netlink).await,
            false => probe::remove_device(&self.netlink).await,
        };
    }

    /// Sends a probe in each family that is served. After [`Self::reconcile`], which sets up what it goes through.
    pub(crate) async fn probe(&mut self) {
        if !self.config.mode.tc {
            return;
        }
        self.reachability.results.clear();
        (self.reachability.condition, self.reachability.notice) = match self.send_probes().await {
            Ok((families, lost)) => {
                let result = |family: Family| ProbeResult {
                    family: family.name().to_owned(),
                    answered: !lost.contains(&family),
                };
                self.reachability.results = families.into_iter().map(result).collect();
                let found = if lost.is_empty() { Ok(()) } else { Err(self.explain(&lost).await) };
                (Some(condition("probe", found)), None)
            }
            Err(error) => {
                let text = format!("whether pods' packets get in cannot be probed: {error:#}");
                (None, Some(Notice { about: "probe".to_owned(), text }))
            }
        };
    }

    /// Returns the families that were probed, and those in which no probe was answered. One that is lost is sent once
    /// more: a packet may be lost on a busy node, or somebody may just have taken away what watches for the answer.
    async fn send_probes(&mut self) -> anyhow::Result<(Vec<Family>, Vec<Family>)> {
        let way = self.prepare_probe().await?;
        let mut lost = way.send(&mut self.object, &way.families).await?;
        if !lost.is_empty() {
            self.reachability.forget();
            lost = self.prepare_probe().await?.send(&mut self.object, &lost).await?;
        }
        // Nobody accepts these connections, so nobody else asks for their records.
        self.attachments.forget_records(way.index)?;
        Ok((way.families, lost))
    }

    async fn prepare_probe(&mut self) -> anyhow::Result<ProbeTarget> {
        if let Err(error) = &self.reachability.device {
            bail!("{error:#}");
        }
        let (hook, families) = (self.attachments.hook(), self.fence.served());
        let way = self.reachability.probe.prepare(&self.netlink, &mut self.object, &self.pins, hook, &families).await?;
        ensure!(self.attachments.has(way.index), "the program is not on its interface");
        Ok(way)
    }

    /// Why probes are lost, as far as can be told, and what to do.
    async fn explain(&self, lost: &[Family]) -> anyhow::Error {
        let families: Vec<&str> = lost.iter().map(|family| family.name()).collect();
        let what = format!(
            "pods' connections to the metadata service do not get in to the agent over {}: a probe was not answered",
            families.join(" and ")
        );
        match suspects::find(self.reachability.nft.as_ref(), lost).await {
            Ok(suspects) => anyhow!("{what}; {}", name(&suspects, lost)),
            Err(error) => anyhow!("{what}; the node's packet filter, which may drop them, cannot be read: {error:#}"),
        }
    }
}

/// Names those that may have dropped the probes, and what lets them in.
fn name(suspects: &[Suspect], lost: &[Family]) -> String {
    if suspects.is_empty() {
        return "no rule of the packet filter that drops what comes in could be the cause: look at `nft list ruleset` for \
                those for what goes out, and at `nstat -az` for full queues"
            .to_owned();
    }
    let named: Vec<String> = suspects.iter().take(SUSPECTS_MAX).map(ToString::to_string).collect();
    let more = match suspects.len().saturating_sub(SUSPECTS_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let remedies: BTreeSet<String> = lost
        .iter()
        .flat_map(|&family| suspects.iter().filter(move |suspect| suspect.sees(family)).map(move |s| s.remedy(family)))
        .map(|command| format!("`{command}`"))
        .collect();
    format!(
        "what may drop them is {}{more}. To let them in: {}",
        named.join("; "),
        remedies.into_iter().collect::<Vec<_>>().join("; ")
    )
}

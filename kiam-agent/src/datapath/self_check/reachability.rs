//! Reachability: a probe shows whether pods' connections reach the listening sockets. When a probe is lost, the packet
//! filter is searched for rules that may have dropped it.

use super::probe::{self, Probe, ProbeTarget};
use crate::{
    datapath::{
        foreign::{
            netfilter::nft::Nft,
            suspects::{self, Suspect},
        },
        node::family::Family,
        parts::Parts,
    },
    report::{Condition, Notice, ProbeResult, condition},
};
use anyhow::{anyhow, bail, ensure};
use std::collections::BTreeSet;

/// Most suspects in a message; the operator has to look at longer lists on the node.
const SUSPECTS_MAX: usize = 8;

/// Results of the last probes.
pub(crate) struct Reachability {
    nft: Option<Nft>,
    device: anyhow::Result<()>,
    probe: Probe,
    results: Vec<ProbeResult>,
    condition: Option<Condition>,
    notice: Option<Notice>,
}

impl Reachability {
    /// Creates it without results.
    pub(crate) fn new(nft: Option<Nft>) -> Self {
        Self { nft, device: Ok(()), probe: Probe::default(), results: Vec::new(), condition: None, notice: None }
    }

    /// Drops what is recorded of the probe's interface: it, the programs or the maps may be others from now on.
    pub(crate) fn forget(&mut self) {
        self.probe.forget();
    }

    /// Returns whether the egress of this interface is watched for answers.
    pub(crate) fn watches(&self, index: u32) -> bool {
        self.probe.watches(index)
    }

    /// Returns the condition that probes are answered; `None` if no probe could be sent.
    pub(crate) const fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// Returns the warning that probes cannot be sent.
    pub(crate) const fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// Returns the results of the last probes, by family.
    pub(crate) fn results(&self) -> &[ProbeResult] {
        &self.results
    }

    /// Creates the probe's interface, or removes the one of an agent that had another `--redirect`.
    pub(crate) async fn ensure_device(&mut self, parts: &Parts) {
        self.device = match parts.config.mode.tc {
            true => probe::ensure_device(&parts.netlink).await,
            false => probe::remove_device(&parts.netlink).await,
        };
    }

    /// Sends a probe in each family that is served.
    pub(crate) async fn probe(&mut self, parts: &mut Parts) {
        if !parts.config.mode.tc {
            return;
        }
        self.results.clear();
        (self.condition, self.notice) = match self.send_probes(parts).await {
            Ok((families, lost)) => {
                let result = |family: Family| ProbeResult {
                    family: family.name().to_owned(),
                    answered: !lost.contains(&family),
                };
                self.results = families.into_iter().map(result).collect();
                let found = if lost.is_empty() { Ok(()) } else { Err(self.explain(&lost).await) };
                (Some(condition("probe", found)), None)
            }
            Err(error) => {
                let text = format!("cannot probe whether pods' packets reach the agent: {error:#}");
                (None, Some(Notice { about: "probe".to_owned(), text }))
            }
        };
    }

    /// Returns the families that were probed, and those in which no probe was answered. A lost probe is sent once more: a
    /// busy node may lose a packet, and another process may just have removed the program that watches for the answer.
    async fn send_probes(&mut self, parts: &mut Parts) -> anyhow::Result<(Vec<Family>, Vec<Family>)> {
        let target = self.prepare(parts).await?;
        let mut lost = target.send(&mut parts.object, &target.families).await?;
        if !lost.is_empty() {
            self.forget();
            lost = self.prepare(parts).await?.send(&mut parts.object, &lost).await?;
        }
        // No worker accepts these connections, so no worker asks for their records.
        parts.attachments.forget_records(target.index)?;
        Ok((target.families, lost))
    }

    async fn prepare(&mut self, parts: &mut Parts) -> anyhow::Result<ProbeTarget> {
        if let Err(error) = &self.device {
            bail!("{error:#}");
        }
        let (hook, families) = (parts.attachments.hook(), parts.fence.served());
        let target = self.probe.prepare(&parts.netlink, &mut parts.object, &parts.pins, hook, &families).await?;
        ensure!(parts.attachments.has(target.index), "the program is not attached to the probe's interface");
        Ok(target)
    }

    /// Returns the likely reason why probes are lost, and what to do.
    async fn explain(&self, lost: &[Family]) -> anyhow::Error {
        let families: Vec<&str> = lost.iter().map(|family| family.name()).collect();
        let what = format!(
            "pods' connections to the metadata service do not reach the agent over {}: a probe was not answered",
            families.join(" and ")
        );
        match suspects::find(self.nft.as_ref(), lost).await {
            Ok(suspects) => anyhow!("{what}; {}", name(&suspects, lost)),
            Err(error) => anyhow!("{what}; the node's packet filter, which may drop them, cannot be read: {error:#}"),
        }
    }
}

/// Names those that may have dropped the probes, and what lets them in.
fn name(suspects: &[Suspect], lost: &[Family]) -> String {
    if suspects.is_empty() {
        return "no rule for incoming packets explains this: check the rules for outgoing packets (`nft list ruleset`) and \
                full queues (`nstat -az`)"
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

//! Rules of kiam, kube2iam and the like in the nat tables: they change the destination of pods' connections to the
//! IMDS, so that the connections can no longer be attributed to pods. The node is not ready while there is one, and the
//! condition names it; with `--take-over` they are deleted.

use super::netfilter::{
    Action, Destination, Place, Rule,
    nft::{Nft, Table},
    removals, xtables,
};
use crate::datapath::node::family::Family;
use anyhow::{Context as _, bail};

/// Name of the table in iptables, and of the chain type in nf_tables.
const NAT: &str = "nat";

/// Search for such rules.
pub(crate) struct ForeignNat {
    nft: Option<Nft>,
    take_over: bool,
    /// Rules found in nf_tables, and the generation of the ruleset in which they were found.
    seen: Option<(u32, Vec<(Table, Rule)>)>,
}

impl ForeignNat {
    /// Creates the search; nothing is read yet.
    pub(crate) const fn new(nft: Option<Nft>, take_over: bool) -> Self {
        Self { nft, take_over, seen: None }
    }

    /// Searches for such rules. Deletes them with `--take-over` if our fence closes the node; until then such a rule
    /// may be all that keeps pods from the real IMDS while kiam's agent is not running. The error names the rules that
    /// remain, each with the command that deletes it.
    pub(crate) async fn check(&mut self, closed: bool) -> anyhow::Result<()> {
        let mut found = self.find().await?;
        if self.take_over && closed && !found.is_empty() {
            let deleted = self.delete_all().await;
            deleted.with_context(|| format!("--take-over failed, and {}", describe(&found)))?;
            found = self.find().await?;
        }
        if found.is_empty() { Ok(()) } else { bail!(describe(&found)) }
    }

    async fn find(&mut self) -> anyhow::Result<Vec<Rule>> {
        let mut found = Vec::new();
        for family in Family::ALL {
            if let Some(table) = xtables::Table::read(family, NAT)? {
                found.extend(table.rules()?.into_iter().filter(is_foreign));
            }
        }
        found.extend(self.in_nft().await?.iter().map(|(_, rule)| rule.clone()));
        Ok(found)
    }

    /// Returns the rules in nf_tables. Reads them only after a change: a node may have tens of thousands, which seldom
    /// change.
    async fn in_nft(&mut self) -> anyhow::Result<&[(Table, Rule)]> {
        let Some(nft) = &self.nft else { return Ok(&[]) };
        let Some(generation) = nft.generation().await? else { return Ok(&[]) };
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != generation) {
            let mut rules = Vec::new();
            for table in nft.tables(NAT).await? {
                let foreign = nft.rules(&table).await?.into_iter().filter(is_foreign);
                rules.extend(foreign.map(|rule| (table.clone(), rule)));
            }
            self.seen = Some((generation, rules));
        }
        Ok(self.seen.as_ref().map_or(&[], |(_, rules)| rules))
    }

    async fn delete_all(&mut self) -> anyhow::Result<()> {
        for family in Family::ALL {
            delete_legacy(family)?;
        }
        let in_nft = self.in_nft().await?.to_vec();
        let Some(nft) = &self.nft else { return Ok(()) };
        for (table, rule) in in_nft {
            if let Place::Nft { handle, .. } = rule.place {
                nft.delete(&table, &rule.chain, handle).await?;
                tracing::warn!("--take-over: deleted {rule} (equivalent command: `{}`)", rule.removal());
            }
        }
        Ok(())
    }
}

fn delete_legacy(family: Family) -> anyhow::Result<()> {
    let has_some = |table: &xtables::Table| table.rules().is_ok_and(|rules| rules.iter().any(is_foreign));
    if !xtables::Table::read(family, NAT)?.is_some_and(|table| has_some(&table)) {
        return Ok(());
    }
    let lock = xtables::Lock::take()?;
    while let Some(table) = xtables::Table::read(family, NAT)?
        && let Some(rule) = table.delete_first(&lock, is_foreign)?
    {
        tracing::warn!("--take-over: deleted {rule} (equivalent command: `{}`)", rule.removal());
    }
    Ok(())
}

fn is_foreign(rule: &Rule) -> bool {
    rule.action == Action::Rewrite && rule.destination == Destination::Imds
}

fn describe(rules: &[Rule]) -> String {
    let removals: Vec<String> = removals(rules).iter().map(|removal| format!("`{removal}`")).collect();
    format!(
        "rules of another program change the destination of pods' connections to the IMDS; delete them, or start the \
         agent with --take-over: {}",
        removals.join("; ")
    )
}

//! Suspects: rules and policies that may drop pods' incoming packets to the IMDS. The actual cause is not determined,
//! which would require a complete evaluation of the packet filter. A rule is a suspect if it drops or rejects, is
//! reachable from a base chain, and has no condition that excludes a SYN to the port of the IMDS.

use super::netfilter::{Action, Base, Place, Rule, TableName, nft::Nft, xtables};
use crate::datapath::node::family::Family;
use std::{collections::BTreeSet, fmt};

/// The tables of iptables-legacy that can drop.
const LEGACY_TABLES: [&str; 4] = ["raw", "mangle", "filter", "security"];
/// The tables that iptables-nft creates, and its names of base chains.
const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
const IPTABLES_CHAINS: [&str; 2] = ["PREROUTING", "INPUT"];

/// A rule, or the policy of a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// Base chain from which packets reach it.
    base: Base,
    /// The rule; `None`: the policy of the base chain.
    rule: Option<Rule>,
}

/// Returns the suspects of this node for packets of these families.
pub(crate) async fn find(nft: Option<&Nft>, families: &[Family]) -> anyhow::Result<Vec<Suspect>> {
    let mut found = Vec::new();
    for &family in families {
        for name in LEGACY_TABLES {
            if let Some(table) = xtables::Table::read(family, name)? {
                found.extend(among(&table.bases()?, &table.rules()?));
            }
        }
    }
    if let Some(nft) = nft
        && nft.generation().await?.is_some()
    {
        for (table, bases) in nft.bases().await? {
            if families.iter().any(|&family| table.sees(family)) {
                found.extend(among(&bases, &nft.rules(&table).await?));
            }
        }
    }
    Ok(found)
}

/// Returns the suspects of one table.
fn among(bases: &[Base], rules: &[Rule]) -> Vec<Suspect> {
    let mut found = Vec::new();
    for base in bases {
        let reached = reached(&base.chain, rules);
        let drops = |rule: &&Rule| {
            reached.contains(rule.chain.as_str()) && rule.action == Action::Drop && rule.may_be_for_imds()
        };
        found.extend(rules.iter().filter(drops).map(|rule| Suspect { base: base.clone(), rule: Some(rule.clone()) }));
        if base.drops {
            found.push(Suspect { base: base.clone(), rule: None });
        }
    }
    found
}

/// Returns the chains that a packet may reach.
fn reached<'a>(base: &'a str, rules: &'a [Rule]) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![base]);
    while let Some(chain) = open.pop() {
        if reached.insert(chain) {
            open.extend(rules.iter().filter(|rule| rule.chain == chain && rule.may_be_for_imds()).filter_map(|rule| {
                match &rule.action {
                    Action::Jump(to) => Some(to.as_str()),
                    _ => None,
                }
            }));
        }
    }
    reached
}

impl Suspect {
    /// Returns the command that shows it.
    fn show_command(&self) -> String {
        let (chain, position) = match &self.rule {
            Some(rule) => (&rule.chain, format!(" {}", rule.position)),
            None => (&self.base.chain, String::new()),
        };
        match &self.base.table {
            TableName::Legacy { program, table } => format!("{program} -t {table} -S {chain}{position}"),
            TableName::Nft { family, table } => format!("nft -a list chain {family} {table} {chain}"),
        }
    }

    /// Returns the command that accepts packets to the IMDS before it.
    pub(crate) fn remedy(&self, family: Family) -> String {
        let (imds, chain) = (family.imds(), &self.base.chain);
        match &self.base.table {
            TableName::Legacy { program, table } => {
                format!("{program} -t {table} -I {chain} -d {imds} -p tcp --dport 80 -j ACCEPT")
            }
            TableName::Nft { family: "ip" | "ip6", table }
                if IPTABLES_TABLES.contains(&table.as_str()) && IPTABLES_CHAINS.contains(&chain.as_str()) =>
            {
                let program = if family == Family::V4 { "iptables-nft" } else { "ip6tables-nft" };
                format!("{program} -t {table} -I {chain} -d {imds} -p tcp --dport 80 -j ACCEPT")
            }
            TableName::Nft { family: of, table } => {
                let header = if family == Family::V4 { "ip" } else { "ip6" };
                format!("nft insert rule {of} {table} {chain} {header} daddr {imds} tcp dport 80 accept")
            }
        }
    }

    /// Returns whether packets of this family can reach it.
    pub(crate) fn sees(&self, family: Family) -> bool {
        match self.base.table {
            TableName::Legacy { program: "ip6tables-legacy", .. } | TableName::Nft { family: "ip6", .. } => {
                family == Family::V6
            }
            TableName::Nft { family: "inet", .. } => true,
            _ => family == Family::V4,
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => {
                write!(f, "{rule}")?;
                if let Place::Nft { handle, .. } = rule.place {
                    write!(f, ", handle {handle}")?;
                }
            }
            None => write!(f, "the policy of {}", self.base)?,
        }
        write!(f, " (`{}`)", self.show_command())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::foreign::netfilter::Destination;

    fn base(chain: &str, drops: bool) -> Base {
        let table = TableName::Nft { family: "inet", table: "fw".to_owned() };
        Base { table, chain: chain.to_owned(), drops }
    }

    fn rule(chain: &str, action: Action) -> Rule {
        let place = Place::Nft { family: "inet", table: "fw".to_owned(), handle: 9 };
        let destination = Destination::Any;
        Rule { place, chain: chain.to_owned(), position: 2, destination, excludes_probe: false, action }
    }

    fn named(bases: &[Base], rules: &[Rule]) -> Vec<String> {
        among(bases, rules).iter().map(ToString::to_string).collect()
    }

    /// A rule that drops is a suspect if packets can reach it from a base chain.
    #[test]
    fn reachable_drop_rule_is_a_suspect() {
        let rules = [
            rule("input", Action::Jump("zones".to_owned())),
            rule("input", Action::Other),
            rule("zones", Action::Drop),
            rule("forward", Action::Drop),
        ];
        let zones = "rule 2 of inet fw zones of nftables, handle 9 (`nft -a list chain inet fw zones`)";
        assert_eq!(named(&[base("input", false)], &rules), [zones]);
        assert_eq!(named(&[base("output", false)], &rules), Vec::<String>::new());
    }

    #[test]
    fn drop_policy_is_a_suspect() {
        let policy = "the policy of inet fw input of nftables (`nft -a list chain inet fw input`)";
        assert_eq!(named(&[base("input", true)], &[]), [policy]);
    }

    /// Rules for other packets are no suspects, nor are those of chains that only they jump to.
    #[test]
    fn rules_for_other_packets_are_no_suspects() {
        let elsewhere = Rule { destination: Destination::Elsewhere, ..rule("input", Action::Drop) };
        let spares = Rule { excludes_probe: true, ..rule("input", Action::Jump("pods".to_owned())) };
        let rules = [elsewhere, spares, rule("pods", Action::Drop)];
        assert_eq!(named(&[base("input", false)], &rules), Vec::<String>::new());
    }

    #[test]
    fn jumps_in_a_circle_end() {
        let rules = [rule("a", Action::Jump("b".to_owned())), rule("b", Action::Jump("a".to_owned()))];
        assert_eq!(reached("a", &rules).len(), 2);
    }

    #[test]
    fn remedy_is_a_command_for_the_kind_of_table() {
        let in_table = |table| Suspect { base: Base { table, ..base("INPUT", true) }, rule: None };
        let legacy = in_table(TableName::Legacy { program: "iptables-legacy", table: "filter" });
        let accept = "-t filter -I INPUT -d 169.254.169.254 -p tcp --dport 80 -j ACCEPT";
        assert_eq!(legacy.remedy(Family::V4), format!("iptables-legacy {accept}"));
        let iptables_nft = in_table(TableName::Nft { family: "ip", table: "filter".to_owned() });
        assert_eq!(iptables_nft.remedy(Family::V4), format!("iptables-nft {accept}"));
        let other = in_table(TableName::Nft { family: "inet", table: "fw".to_owned() });
        let accept = "nft insert rule inet fw INPUT ip6 daddr fd00:ec2::254 tcp dport 80 accept";
        assert_eq!(other.remedy(Family::V6), accept);
    }
}

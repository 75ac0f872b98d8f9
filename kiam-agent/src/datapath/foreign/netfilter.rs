//! The rules of other programs in the kernel's packet filter: those of iptables-legacy ([`xtables`]), and those of
//! nf_tables ([`nft`]), which include those of iptables-nft. The agent has no rules of its own there. It reads them
//! from the kernel, so that the image needs no other program, and the agent no other capability than CAP_NET_ADMIN.

pub(crate) mod nft;
pub(crate) mod xtables;

use std::{cmp::Reverse, fmt};

/// A rule, as far as it is relevant here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Location, and the data that its deletion needs.
    pub(crate) place: Place,
    /// Name of its chain.
    pub(crate) chain: String,
    /// Position in the chain, from 1.
    pub(crate) position: u32,
    /// Destinations that its conditions select, with regard to the IMDS.
    pub(crate) destination: Destination,
    /// True if its other conditions exclude the probe's SYN: it is for another protocol, port or interface.
    pub(crate) excludes_probe: bool,
    /// Action.
    pub(crate) action: Action,
}

/// Location of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A table of iptables-legacy.
    Legacy {
        /// `iptables-legacy` or `ip6tables-legacy`.
        program: &'static str,
        /// The table's name.
        table: &'static str,
        /// The rule in the notation of iptables; `None` if it has parts that are not supported here.
        spec: Option<String>,
    },
    /// A table of nf_tables.
    Nft {
        /// `ip`, `ip6` or `inet`.
        family: &'static str,
        /// The table's name.
        table: String,
        /// The handle of the rule, which the table never reuses.
        handle: u64,
    },
}

/// Destinations that the conditions of a rule select, with regard to the IMDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// No condition on the destination, or one that is not supported here.
    Any,
    /// The address of the IMDS, or a network that contains it.
    Imds,
    /// Other destinations.
    Elsewhere,
}

/// Action of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Changes the destination of the packet (DNAT, REDIRECT).
    Rewrite,
    /// Drops or rejects the packet.
    Drop,
    /// Continues in another chain of the table, with or without return.
    Jump(String),
    /// Anything else.
    Other,
}

/// A base chain at a hook that incoming packets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its table.
    pub(crate) table: TableName,
    /// The chain's name.
    pub(crate) chain: String,
    /// True if its policy is to drop packets.
    pub(crate) drops: bool,
}

/// Name of a table, as used in commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableName {
    /// A table of iptables-legacy.
    Legacy {
        /// `iptables-legacy` or `ip6tables-legacy`.
        program: &'static str,
        /// The table's name.
        table: &'static str,
    },
    /// A table of nf_tables.
    Nft {
        /// `ip`, `ip6` or `inet`.
        family: &'static str,
        /// The table's name.
        table: String,
    },
}

impl Rule {
    /// Returns whether the rule may apply to packets to the IMDS.
    pub(crate) fn may_be_for_imds(&self) -> bool {
        self.destination != Destination::Elsewhere && !self.excludes_probe
    }

    /// Returns the command that deletes the rule.
    pub(crate) fn removal(&self) -> String {
        let Self { place, chain, position, .. } = self;
        match place {
            Place::Legacy { program, table, spec: Some(spec) } => format!("{program} -t {table} -D {chain} {spec}"),
            Place::Legacy { program, table, spec: None } => format!("{program} -t {table} -D {chain} {position}"),
            Place::Nft { family, table, handle } => format!("nft delete rule {family} {table} {chain} handle {handle}"),
        }
    }
}

/// Returns the commands that delete these rules, in the order in which they must be run: first the deletions by
/// position, from the last to the first, because each changes the positions after it.
pub(crate) fn removals(rules: &[Rule]) -> Vec<String> {
    let mut rules: Vec<&Rule> = rules.iter().collect();
    rules.sort_by_key(|rule| match rule.place {
        Place::Legacy { spec: None, .. } => (0, Reverse(rule.position)),
        _ => (1, Reverse(0)),
    });
    rules.into_iter().map(Rule::removal).collect()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, position) = (&self.chain, self.position);
        match &self.place {
            Place::Legacy { program, table, .. } => write!(f, "rule {position} of {table} {chain} of {program}"),
            Place::Nft { family, table, .. } => write!(f, "rule {position} of {family} {table} {chain} of nftables"),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = &self.chain;
        match &self.table {
            TableName::Legacy { program, table } => write!(f, "{table} {chain} of {program}"),
            TableName::Nft { family, table } => write!(f, "{family} {table} {chain} of nftables"),
        }
    }
}

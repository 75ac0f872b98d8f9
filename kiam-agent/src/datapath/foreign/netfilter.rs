//! What other programs have in the kernel's packet filter: the rules of iptables-legacy ([`xtables`]) and those of
//! nf_tables ([`nft`]), which iptables-nft's are too. Nothing of ours is in there. It is read from the kernel itself,
//! so the image needs no program for it and the agent no capability but CAP_NET_ADMIN.

pub(crate) mod nft;
pub(crate) mod xtables;

use std::{cmp::Reverse, fmt};

/// A rule, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Where it is, and what takes it away.
    pub(crate) place: Place,
    /// The chain that it stands in.
    pub(crate) chain: String,
    /// Counted from 1 within the chain.
    pub(crate) position: u32,
    /// What its conditions say about packets to M.
    pub(crate) destination: Destination,
    /// Its other conditions leave out the probe's SYN: it is for another protocol, port or interface.
    pub(crate) excludes_probe: bool,
    /// What it does.
    pub(crate) action: Action,
}

/// Where a rule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a table of iptables-legacy.
    Legacy {
        /// `iptables-legacy` or `ip6tables-legacy`.
        program: &'static str,
        /// The table's name.
        table: &'static str,
        /// The rule as iptables writes it; `None` when it has parts that are not read here.
        spec: Option<String>,
    },
    /// In a table of nf_tables.
    Nft {
        /// `ip`, `ip6` or `inet`.
        family: &'static str,
        /// The table's name.
        table: String,
        /// The rule's number, which no other rule of the table ever has.
        handle: u64,
    },
}

/// What the conditions of a rule say about M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Nothing, or nothing that is read here.
    Any,
    /// M is meant: its address, or a network that it is in.
    Imds,
    /// The rule is for other destinations.
    Elsewhere,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Gives the packet another destination (DNAT, REDIRECT).
    Rewrite,
    /// Drops or rejects it.
    Drop,
    /// Goes on in another chain of the table, and comes back or not.
    Jump(String),
    /// Anything else.
    Other,
}

/// A chain that packets begin in on their way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Where it is.
    pub(crate) table: TableName,
    /// The chain's name.
    pub(crate) chain: String,
    /// What none of its rules decides about is dropped.
    pub(crate) drops: bool,
}

/// A table, as the commands call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableName {
    /// Of iptables-legacy.
    Legacy {
        /// `iptables-legacy` or `ip6tables-legacy`.
        program: &'static str,
        /// The table's name.
        table: &'static str,
    },
    /// Of nf_tables.
    Nft {
        /// `ip`, `ip6` or `inet`.
        family: &'static str,
        /// The table's name.
        table: String,
    },
}

impl Rule {
    /// Whether packets to M may be among those that it is for.
    pub(crate) fn may_be_for_imds(&self) -> bool {
        self.destination != Destination::Elsewhere && !self.excludes_probe
    }

    /// The command that deletes the rule.
    pub(crate) fn removal(&self) -> String {
        let Self { place, chain, position, .. } = self;
        match place {
            Place::Legacy { program, table, spec: Some(spec) } => format!("{program} -t {table} -D {chain} {spec}"),
            Place::Legacy { program, table, spec: None } => format!("{program} -t {table} -D {chain} {position}"),
            Place::Nft { family, table, handle } => format!("nft delete rule {family} {table} {chain} handle {handle}"),
        }
    }
}

/// The commands that delete all of some rules, in an order in which they can be run: those that go by number first, from
/// the last to the first, because a deletion changes the numbers behind it.
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

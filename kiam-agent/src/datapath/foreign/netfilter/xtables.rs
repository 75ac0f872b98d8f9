//! The tables of iptables-legacy, over the socket options that iptables itself uses. The programs of iptables cannot be
//! used: they open a raw socket, for which the agent has no capability.

mod edit;
mod layout;
mod spec;

use super::{Action, Base, Place, Rule, TableName};
use crate::{datapath::node::family::Family, sys::sockopt};
use anyhow::{Context as _, anyhow};
use layout::{Entry, GET_ENTRIES_HEAD_LEN, Info, Target};
use std::{collections::BTreeMap, fs, io, net::UdpSocket};
use zerocopy::IntoBytes as _;

pub(in crate::datapath) use edit::Lock;

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` and those of IPv6 (include/uapi/linux/netfilter_ipv4/ip_tables.h).
const SO_GET_INFO: i32 = 64;
const SO_GET_ENTRIES: i32 = 65;
/// Base chains by hook number (`enum nf_inet_hooks`).
const HOOK_CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Base chains of incoming packets.
const INGRESS_CHAINS: [&str; 2] = ["PREROUTING", "INPUT"];
/// `NF_DROP` as a standard target's verdict: `-NF_DROP - 1`.
const VERDICT_DROP: i32 = -1;

/// Snapshot of a table.
pub(crate) struct Table {
    family: Family,
    name: &'static str,
    socket: UdpSocket,
    info: Info,
    entries: Vec<u8>,
}

impl Table {
    /// Reads a table; `None` if this network namespace has no table of that name. Reads the list of tables first,
    /// because the kernel would create an empty table when it is read by name.
    pub(crate) fn read(family: Family, name: &'static str) -> anyhow::Result<Option<Self>> {
        if !exists(family, name).with_context(|| format!("listing the {} tables of iptables-legacy", family.name()))? {
            return Ok(None);
        }
        let read = Self::read_existing(family, name);
        read.map(Some).with_context(|| format!("reading the {} table {name} of iptables-legacy", family.name()))
    }

    fn read_existing(family: Family, name: &'static str) -> anyhow::Result<Self> {
        let socket = match family {
            Family::V4 => UdpSocket::bind("127.0.0.1:0"),
            Family::V6 => UdpSocket::bind("[::1]:0"),
        }?;
        let mut info = Info::of(name);
        sockopt::get(&socket, level(family), SO_GET_INFO, info.as_mut_bytes())?;
        let mut answer = layout::get_entries(name, info.size);
        sockopt::get(&socket, level(family), SO_GET_ENTRIES, &mut answer)?;
        let entries = answer.split_off(GET_ENTRIES_HEAD_LEN);
        Ok(Self { family, name, socket, info, entries })
    }

    /// Returns the rules, without the policies of the chains.
    pub(crate) fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        Ok(self.located()?.into_iter().map(|(_, rule)| rule).collect())
    }

    /// Returns the base chains of incoming packets.
    pub(crate) fn bases(&self) -> anyhow::Result<Vec<Base>> {
        let entries = self.entries()?;
        let drops = |hook: usize| {
            let policy = entries.iter().find(|(offset, _)| self.info.underflow.get(hook) == Some(offset));
            policy.is_some_and(|(_, entry)| entry.target == Target::Standard(VERDICT_DROP))
        };
        let ingress = self.valid_hooks().filter(|(_, name)| INGRESS_CHAINS.contains(name));
        let table = TableName::Legacy { program: self.program(), table: self.name };
        Ok(ingress
            .map(|(hook, name)| Base { table: table.clone(), chain: name.to_owned(), drops: drops(hook) })
            .collect())
    }

    const fn program(&self) -> &'static str {
        match self.family {
            Family::V4 => "iptables-legacy",
            Family::V6 => "ip6tables-legacy",
        }
    }

    /// Returns the rules with the offsets of their entries.
    fn located(&self) -> anyhow::Result<Vec<(u32, Rule)>> {
        let mut rules = Vec::new();
        let (mut chain, mut position) = (String::new(), 0);
        let entries = self.entries()?;
        let chains = chains(&entries);
        for (offset, entry) in &entries {
            let (offset, entry) = (*offset, entry);
            if let Some(hook) = self.hook_at(offset) {
                (chain, position) = (hook.to_owned(), 0);
            }
            if let Target::ChainHead(name) = &entry.target {
                (chain, position) = (name.clone(), 0);
                continue;
            }
            position += 1;
            if !self.is_policy(offset) {
                rules.push((offset, self.rule(&chain, position, entry, &chains)));
            }
        }
        Ok(rules)
    }

    fn rule(&self, chain: &str, position: u32, entry: &Entry, chains: &BTreeMap<u32, String>) -> Rule {
        Rule {
            place: Place::Legacy { program: self.program(), table: self.name, spec: spec::of(entry) },
            chain: chain.to_owned(),
            position,
            destination: entry.destination.covers(self.family.imds()),
            excludes_probe: spec::excludes_probe(entry),
            action: action(&entry.target, chains),
        }
    }

    fn entries(&self) -> anyhow::Result<Vec<(u32, Entry)>> {
        let mut entries = Vec::new();
        let mut offset = 0_u32;
        while offset < self.info.size {
            let rest =
                self.entries.get(usize::try_from(offset)?..).context("an entry is beyond the end of the table")?;
            let entry = Entry::parse(self.family, rest)
                .ok_or_else(|| anyhow!("the entry at {offset} of {} has an unexpected layout", self.info.size))?;
            let len = entry.len;
            entries.push((offset, entry));
            offset += u32::from(len);
        }
        Ok(entries)
    }

    fn hook_at(&self, offset: u32) -> Option<&'static str> {
        let starts = self.valid_hooks().find(|&(hook, _)| self.info.hook_entry.get(hook) == Some(&offset));
        starts.map(|(_, name)| name)
    }

    fn is_policy(&self, offset: u32) -> bool {
        self.valid_hooks().any(|(hook, _)| self.info.underflow.get(hook) == Some(&offset))
    }

    fn valid_hooks(&self) -> impl Iterator<Item = (usize, &'static str)> {
        HOOK_CHAINS.into_iter().enumerate().filter(|(hook, _)| self.info.valid_hooks & (1 << hook) != 0)
    }
}

/// Returns the chains that rules can jump to, by the offset of the jump.
fn chains(entries: &[(u32, Entry)]) -> BTreeMap<u32, String> {
    let heads = entries.iter().filter_map(|(offset, entry)| match &entry.target {
        Target::ChainHead(name) => Some((offset + u32::from(entry.len), name.clone())),
        _ => None,
    });
    heads.collect()
}

fn action(target: &Target, chains: &BTreeMap<u32, String>) -> Action {
    match target {
        Target::Standard(VERDICT_DROP) => Action::Drop,
        Target::Standard(verdict) => {
            let chain = u32::try_from(*verdict).ok().and_then(|offset| chains.get(&offset));
            chain.map_or(Action::Other, |name| Action::Jump(name.clone()))
        }
        Target::Extension(target) => match target.name.as_str() {
            "DNAT" | "REDIRECT" => Action::Rewrite,
            "REJECT" => Action::Drop,
            _ => Action::Other,
        },
        Target::ChainHead(_) => Action::Other,
    }
}

fn exists(family: Family, name: &str) -> io::Result<bool> {
    let list = match family {
        Family::V4 => "/proc/self/net/ip_tables_names",
        Family::V6 => "/proc/self/net/ip6_tables_names",
    };
    match fs::read_to_string(list) {
        Ok(names) => Ok(names.lines().any(|line| line == name)),
        // The kernel has no iptables-legacy, or has not loaded it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

const fn level(family: Family) -> i32 {
    match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    }
}

//! The rules and flowtables of nf_tables, over netlink. The rules of iptables-nft are here, too.

mod flowtable;
mod rule;
mod set;

#[cfg(test)]
pub(crate) use flowtable::Devices;
pub(crate) use flowtable::Flowtable;

use super::{Base, Rule, TableName};
use crate::datapath::node::family::Family;
use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt as _};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, GenAttribute, GenMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage,
        RuleAttribute, RuleMessage, SetElementList, SetElementMessage,
    },
    none::ControlMessage,
};
use rtnetlink::{
    proto::{self, ConnectionHandle, ReplyExpectation, sys::protocols::NETLINK_NETFILTER},
    sys::SocketAddr,
};
use std::io;

/// Subsystem of a batch (`NFNL_SUBSYS_NFTABLES`, in `nfgenmsg.res_id`).
const SUBSYSTEM: u16 = 10;
/// Policy that drops (`NF_DROP`).
const VERDICT_DROP: u32 = 0;
/// Families of tables that packets to the IMDS pass.
const FAMILIES: [NetfilterProtoFamily; 3] =
    [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6, NetfilterProtoFamily::Inet];

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    family: NetfilterProtoFamily,
    name: String,
}

impl Table {
    /// Returns whether packets of a family pass the table.
    pub(crate) const fn sees(&self, family: Family) -> bool {
        match self.family {
            NetfilterProtoFamily::IPv4 => matches!(family, Family::V4),
            NetfilterProtoFamily::IPv6 => matches!(family, Family::V6),
            _ => true,
        }
    }

    /// Returns its family, as used in commands.
    const fn family_name(&self) -> &'static str {
        match self.family {
            NetfilterProtoFamily::IPv4 => "ip",
            NetfilterProtoFamily::IPv6 => "ip6",
            _ => "inet",
        }
    }
}

/// A connection to nf_tables.
#[derive(Debug, Clone)]
pub(crate) struct Nft(ConnectionHandle<NetfilterMessage>);

impl Nft {
    /// Opens a connection; `None` if this kernel has no nf_tables. Its task ends with the runtime.
    pub(crate) fn connect() -> io::Result<Option<Self>> {
        match proto::new_connection(NETLINK_NETFILTER) {
            Ok((connection, handle, _)) => {
                tokio::spawn(connection);
                Ok(Some(Self(handle)))
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the generation of the ruleset, which changes with each change of the ruleset. `None`: this kernel has no
    /// nf_tables.
    pub(crate) async fn generation(&self) -> anyhow::Result<Option<u32>> {
        let query = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let answer = self.request(NetfilterProtoFamily::Unspec, query, NLM_F_REQUEST).await;
        let answers = match answer {
            Ok(answers) => answers,
            // The subsystem is not registered (nfnetlink_rcv_msg, net/netfilter/nfnetlink.c).
            Err(error) if errno(&error) == Some(libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error).context("reading the generation of nf_tables"),
        };
        let id = answers.into_iter().find_map(|(_, message)| match message {
            NfTablesMessage::NewGen(message) => message.attributes.into_iter().find_map(|attribute| match attribute {
                GenAttribute::Id(id) => Some(id),
                _ => None,
            }),
            _ => None,
        });
        id.map(Some).context("nf_tables does not report its generation")
    }

    /// Returns the tables with a base chain of this type (`nat`, `filter`, `route`).
    pub(crate) async fn tables(&self, chain_type: &str) -> anyhow::Result<Vec<Table>> {
        let is_wanted = |a: &ChainAttribute| matches!(a, ChainAttribute::Type(found) if found == chain_type);
        let chains = self.chains().await?.into_iter();
        let mut tables: Vec<Table> =
            chains.filter(|(_, chain)| chain.iter().any(is_wanted)).map(|(table, _)| table).collect();
        tables.dedup();
        Ok(tables)
    }

    /// Returns the tables with base chains of incoming packets, and those chains.
    pub(crate) async fn bases(&self) -> anyhow::Result<Vec<(Table, Vec<Base>)>> {
        let mut found: Vec<(Table, Vec<Base>)> = Vec::new();
        for (table, chain) in self.chains().await? {
            let Some(base) = base(&table, &chain) else { continue };
            match found.iter_mut().find(|(known, _)| *known == table) {
                Some((_, bases)) => bases.push(base),
                None => found.push((table, vec![base])),
            }
        }
        Ok(found)
    }

    async fn chains(&self) -> anyhow::Result<Vec<(Table, Vec<ChainAttribute>)>> {
        let query = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let answers = self.request(NetfilterProtoFamily::Unspec, query, NLM_F_REQUEST | NLM_F_DUMP).await;
        let mut chains = Vec::new();
        for (family, message) in answers.context("listing the chains of nf_tables")? {
            let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else { continue };
            let name = attributes.iter().find_map(|attribute| match attribute {
                ChainAttribute::Table(name) => Some(name.clone()),
                _ => None,
            });
            if let Some(name) = name.filter(|_| FAMILIES.contains(&family)) {
                chains.push((Table { family, name }, attributes));
            }
        }
        Ok(chains)
    }

    /// Returns the rules of a table.
    pub(crate) async fn rules(&self, table: &Table) -> anyhow::Result<Vec<Rule>> {
        let attributes = vec![RuleAttribute::Table(table.name.clone())];
        let query = NfTablesMessage::GetRule(RuleMessage { attributes });
        let answers = self.request(table.family, query, NLM_F_REQUEST | NLM_F_DUMP).await;
        let answers = answers.with_context(|| format!("listing the rules of the nf_tables table {}", table.name))?;
        let mut rules: Vec<Rule> = Vec::new();
        for (_, message) in answers {
            let NfTablesMessage::NewRule(message) = message else { continue };
            let Some(mut read) = rule::read(table, &message) else { continue };
            let last = rules.last().filter(|last| last.chain == read.rule.chain);
            read.rule.position = last.map_or(1, |last| last.position + 1);
            if let Some(lookup) = &read.lookup {
                read.rule.destination = lookup.evaluate(&self.elements(table, &lookup.set).await?);
            }
            rules.push(read.rule);
        }
        Ok(rules)
    }

    /// Returns all flowtables.
    pub(crate) async fn flowtables(&self) -> anyhow::Result<Vec<Flowtable>> {
        let query = NfTablesMessage::GetFlowTable(Vec::new());
        let answers = self.request(NetfilterProtoFamily::Unspec, query, NLM_F_REQUEST | NLM_F_DUMP).await;
        let flowtables = answers.context("listing the flowtables of nf_tables")?.into_iter();
        let read = |(family, message)| match message {
            NfTablesMessage::NewFlowTable(attributes) => flowtable::read(family, &attributes),
            _ => None,
        };
        Ok(flowtables.filter_map(read).collect())
    }

    /// Deletes a rule. The kernel returns `ENOENT` if it is gone already.
    pub(crate) async fn delete(&self, table: &Table, chain: &str, handle: u64) -> anyhow::Result<()> {
        let attributes = vec![
            RuleAttribute::Table(table.name.clone()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Handle(handle),
        ];
        let delete = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        let control = |message| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
            to_netlink(NetfilterMessage::new(header, message), NLM_F_REQUEST)
        };
        let batch = [
            (control(ControlMessage::BatchBegin), ReplyExpectation::NotExpected),
            (nftables(table.family, delete, NLM_F_REQUEST | NLM_F_ACK), ReplyExpectation::Expected),
            (control(ControlMessage::BatchEnd), ReplyExpectation::NotExpected),
        ];
        let answers = self.0.request_batch_with_expectation(batch, kernel())?;
        collect(answers).await.map(drop).with_context(|| format!("deleting rule {handle} of {}", table.name))
    }

    async fn elements(&self, table: &Table, set: &str) -> anyhow::Result<Vec<Vec<u8>>> {
        let attributes = vec![SetElementList::Table(table.name.clone()), SetElementList::Set(set.to_owned())];
        let query = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let answers = self.request(table.family, query, NLM_F_REQUEST | NLM_F_DUMP).await;
        let answers = answers.with_context(|| format!("listing the elements of the set {set}"))?;
        let messages = answers.into_iter().filter_map(|(_, message)| match message {
            NfTablesMessage::NewSetElement(message) => Some(message),
            _ => None,
        });
        Ok(messages.flat_map(set::keys).collect())
    }

    async fn request(
        &self,
        family: NetfilterProtoFamily,
        query: NfTablesMessage,
        flags: u16,
    ) -> anyhow::Result<Vec<(NetfilterProtoFamily, NfTablesMessage)>> {
        collect(self.0.request(nftables(family, query, flags), kernel())?).await
    }
}

/// Returns a chain as a base chain of incoming packets, if it is one.
fn base(table: &Table, chain: &[ChainAttribute]) -> Option<Base> {
    const INGRESS_HOOKS: [HookNumber; 2] =
        [HookNumber::Inet(InetHookNumber::PreRouting), HookNumber::Inet(InetHookNumber::LocalIn)];
    let (mut name, mut hooked, mut drops) = (None, false, false);
    for attribute in chain {
        match attribute {
            ChainAttribute::Name(found) => name = Some(found.clone()),
            ChainAttribute::Policy(policy) => drops = *policy == VERDICT_DROP,
            ChainAttribute::Hook(hook) => {
                hooked = hook.iter().any(|part| matches!(part, Hook::Number(number) if INGRESS_HOOKS.contains(number)));
            }
            _ => {}
        }
    }
    let table = TableName::Nft { family: table.family_name(), table: table.name.clone() };
    name.filter(|_| hooked).map(|chain| Base { table, chain, drops })
}

/// Returns the address of the kernel.
fn kernel() -> SocketAddr {
    SocketAddr::new(0, 0)
}

fn nftables(family: NetfilterProtoFamily, message: NfTablesMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    to_netlink(NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message), flags)
}

fn to_netlink(message: NetfilterMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message
}

async fn collect(
    mut answers: impl Stream<Item = NetlinkMessage<NetfilterMessage>> + Unpin,
) -> anyhow::Result<Vec<(NetfilterProtoFamily, NfTablesMessage)>> {
    let mut messages = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                header,
                inner: NetfilterMessageInner::NfTables(message),
                ..
            }) => messages.push((header.family, message)),
            NetlinkPayload::Error(error) if error.code.is_some() => bail!(error.to_io()),
            NetlinkPayload::Overrun(_) => bail!("the kernel's answer is incomplete"),
            _ => {}
        }
    }
    Ok(messages)
}

fn errno(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error)
}

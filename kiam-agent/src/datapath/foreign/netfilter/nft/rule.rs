//! Evaluation of a rule of nf_tables: its action, and the destinations that it selects. The expressions of a rule load
//! a part of the packet, mask it and compare it; the last one acts.

use super::{Table, set::Lookup};
use crate::datapath::{
    foreign::netfilter::{Action, Destination, Place, Rule},
    node::{family::Family, roles::PROBE},
};
use kiam_common::abi::IMDS_PORT;
use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup as LookupAttribute,
    Meta, MetaKey, Operator, Payload, RuleAttribute, RuleMessage, Verdict, VerdictAttribute,
};
use std::net::IpAddr;

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER` (include/uapi/linux/netfilter/nf_tables.h).
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Offsets of the destination in an IPv4 and in an IPv6 header.
const DESTINATION_OFFSETS: [(u32, Family); 2] = [(16, Family::V4), (24, Family::V6)];
/// Offsets of the protocol in an IPv4 and in an IPv6 header, and the number of TCP.
const PROTOCOL_OFFSETS: [u32; 2] = [9, 6];
const PROTOCOL_TCP: u8 = 6;
/// Offset of the destination port in a TCP header.
const DESTINATION_PORT_OFFSET: u32 = 2;
/// Length of an interface name in a register, padded with zeros (`IFNAMSIZ`).
const INTERFACE_LEN: usize = 16;
/// `NF_DROP`.
const VERDICT_DROP: u32 = 0;
/// `NFTA_NAT_TYPE`, and its value for destination NAT.
const NAT_TYPE: u16 = 1;
const NAT_DESTINATION: [u8; 4] = [0, 0, 0, 1];
/// `NFTA_TARGET_NAME`: a target of iptables, used by iptables-nft.
const TARGET_NAME: u16 = 1;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;

/// A rule, read without its sets.
pub(super) struct Read {
    /// The rule; its position is not set yet.
    pub(super) rule: Rule,
    /// Set lookup that determines whether the rule applies to the IMDS.
    pub(super) lookup: Option<Lookup>,
}

/// Reads a rule; `None` if it has no chain or handle.
pub(super) fn read(table: &Table, message: &RuleMessage) -> Option<Read> {
    let (mut chain, mut handle, mut evaluator) = (None, None, Evaluator::default());
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Chain(name) => chain = Some(name.clone()),
            RuleAttribute::Handle(number) => handle = Some(*number),
            RuleAttribute::Expressions(expressions) => expressions.iter().for_each(|each| evaluator.take(each)),
            _ => {}
        }
    }
    let place = Place::Nft { family: table.family_name(), table: table.name.clone(), handle: handle? };
    let Evaluator { destination, excludes_probe, action, lookup, .. } = evaluator;
    Some(Read { rule: Rule { place, chain: chain?, position: 0, destination, excludes_probe, action }, lookup })
}

/// Evaluation of the expressions of one rule for the probe's SYN.
struct Evaluator {
    /// Content of the register that was loaded last, for a packet to the IMDS.
    loaded: Option<Loaded>,
    destination: Destination,
    excludes_probe: bool,
    action: Action,
    lookup: Option<Lookup>,
}

/// A part of a packet to the IMDS.
struct Loaded {
    /// True if it is the destination, or a part of it.
    destination: bool,
    bytes: Vec<u8>,
}

impl Default for Evaluator {
    fn default() -> Self {
        let destination = Destination::Any;
        Self { loaded: None, destination, excludes_probe: false, action: Action::Other, lookup: None }
    }
}

impl Evaluator {
    fn take(&mut self, expression: &ListAttribute<ExpressionAttribute>) {
        let ListAttribute::Element(parts) = expression else { return };
        for part in parts {
            match part {
                ExpressionAttribute::Data(Expressions::Payload(payload)) => self.loaded = loaded(payload),
                ExpressionAttribute::Data(Expressions::Bitwise(bitwise)) => self.mask(bitwise),
                ExpressionAttribute::Data(Expressions::Cmp(cmp)) => self.compare(cmp),
                ExpressionAttribute::Data(Expressions::Lookup(lookup)) => self.look_up(lookup),
                ExpressionAttribute::Data(Expressions::Meta(meta)) => self.loaded = loaded_meta(meta),
                ExpressionAttribute::Data(Expressions::Immediate(immediate)) => self.decide(immediate),
                ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
                    if let Some(action) = action(expression_type, attributes) =>
                {
                    self.action = action;
                }
                // These have no data part if they have no attributes.
                ExpressionAttribute::Name(name) if name == "redir" => self.action = Action::Rewrite,
                ExpressionAttribute::Name(name) if name == "reject" => self.action = Action::Drop,
                _ => {}
            }
        }
    }

    fn mask(&mut self, bitwise: &[Bitwise]) {
        let Some(loaded) = &mut self.loaded else { return };
        for attribute in bitwise {
            if let Bitwise::Mask(DataAttribute::Value(mask)) = attribute {
                loaded.bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
            }
        }
    }

    fn compare(&mut self, cmp: &[Cmp]) {
        let Some(loaded) = self.loaded.take() else { return };
        // A prefix of an interface name is compared with as many bytes of the name.
        let is_equal = |value: &[u8]| loaded.bytes.starts_with(value);
        let equal = cmp.iter().any(|part| matches!(part, Cmp::Data(DataAttribute::Value(value)) if is_equal(value)));
        let operator = cmp.iter().find_map(|part| match part {
            Cmp::Op(operator) => Some(*operator),
            _ => None,
        });
        let holds = match operator {
            Some(Operator::Equal) => equal,
            Some(Operator::NotEqual) => !equal,
            _ => return,
        };
        match (loaded.destination, holds) {
            (true, true) if operator == Some(Operator::Equal) => self.destination = Destination::Imds,
            (_, true) => {}
            (true, false) => self.destination = Destination::Elsewhere,
            (false, false) => self.excludes_probe = true,
        }
    }

    fn decide(&mut self, immediate: &[Immediate]) {
        let verdict = immediate.iter().find_map(|part| match part {
            Immediate::Data(DataAttribute::Verdict(verdict)) => Some(verdict),
            _ => None,
        });
        let (mut code, mut chain) = (None, None);
        for attribute in verdict.into_iter().flatten() {
            match attribute {
                VerdictAttribute::Code(found) => code = Some(*found),
                VerdictAttribute::Chain(name) => chain = Some(name.clone()),
                _ => {}
            }
        }
        match (code, chain) {
            (Some(Verdict::Other(VERDICT_DROP)), _) => self.action = Action::Drop,
            (Some(Verdict::Jump | Verdict::Goto), Some(chain)) => self.action = Action::Jump(chain),
            _ => {}
        }
    }

    fn look_up(&mut self, lookup: &[LookupAttribute]) {
        let Some(Loaded { bytes: imds, .. }) = self.loaded.take().filter(|loaded| loaded.destination) else { return };
        let (mut set, mut inverted) = (None, false);
        for attribute in lookup {
            match attribute {
                LookupAttribute::Set(name) => set = Some(name.clone()),
                LookupAttribute::Flags(flags) => inverted = flags & LOOKUP_INVERTED != 0,
                _ => {}
            }
        }
        self.lookup = set.map(|set| Lookup { set, imds, inverted });
    }
}

/// Returns the part of a packet to the IMDS that is loaded, if it is a known one.
fn loaded(payload: &[Payload]) -> Option<Loaded> {
    let (mut base, mut offset, mut len) = (None, None, None);
    for attribute in payload {
        match attribute {
            Payload::Base(value) => base = Some(*value),
            Payload::Offset(value) => offset = Some(*value),
            Payload::Len(value) => len = usize::try_from(*value).ok(),
            _ => {}
        }
    }
    match (base?, offset?, len?) {
        (TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2) => {
            Some(Loaded { destination: false, bytes: IMDS_PORT.to_be_bytes().to_vec() })
        }
        (NETWORK_HEADER, at, 1) if PROTOCOL_OFFSETS.contains(&at) => {
            Some(Loaded { destination: false, bytes: vec![PROTOCOL_TCP] })
        }
        (NETWORK_HEADER, at, len) => {
            let (_, family) = DESTINATION_OFFSETS.into_iter().find(|&(offset, _)| offset == at)?;
            let imds = match family.imds() {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            Some(Loaded { destination: true, bytes: imds.get(..len)?.to_vec() })
        }
        _ => None,
    }
}

/// Returns the metadata of a packet to the IMDS that is loaded, if it is known.
fn loaded_meta(meta: &[Meta]) -> Option<Loaded> {
    let bytes = meta.iter().find_map(|attribute| match attribute {
        Meta::Key(MetaKey::L4Proto) => Some(vec![PROTOCOL_TCP]),
        Meta::Key(MetaKey::Iifname) => {
            let mut name = PROBE.as_bytes().to_vec();
            name.resize(INTERFACE_LEN, 0);
            Some(name)
        }
        _ => None,
    })?;
    Some(Loaded { destination: false, bytes })
}

/// Returns the action of an expression, if it has one.
fn action(expression: &str, attributes: &[DefaultNla]) -> Option<Action> {
    let value = |kind| attributes.iter().find(|attribute| attribute.kind() == kind).map(bytes);
    match expression {
        "redir" => Some(Action::Rewrite),
        "reject" => Some(Action::Drop),
        "nat" => value(NAT_TYPE).filter(|kind| *kind == NAT_DESTINATION).map(|_| Action::Rewrite),
        "target" => match value(TARGET_NAME)?.split(|&byte| byte == 0).next()? {
            b"DNAT" | b"REDIRECT" => Some(Action::Rewrite),
            b"REJECT" => Some(Action::Drop),
            _ => None,
        },
        _ => None,
    }
}

fn bytes(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

//! What a rule of nf_tables does, and what it says about M: its expressions load a part of the packet, mask it, compare
//! it; the last one acts.

use super::{Table, set::Lookup};
use crate::redirect::{
    fence::Family,
    netfilter::{Action, Destination, Place, Rule},
};
use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::{
    NetfilterProtoFamily,
    nftables::{
        Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, ListAttribute, Lookup as LookupAttribute,
        Operator, Payload, RuleAttribute, RuleMessage,
    },
};
use std::net::IpAddr;

/// `NFT_PAYLOAD_NETWORK_HEADER` (include/uapi/linux/netfilter/nf_tables.h).
const NETWORK_HEADER: u32 = 1;
/// Where the destination is in an IPv4 and in an IPv6 header.
const DESTINATION: [(u32, Family); 2] = [(16, Family::V4), (24, Family::V6)];
/// `NFTA_NAT_TYPE`, and its value for a destination.
const NAT_TYPE: u16 = 1;
const NAT_DESTINATION: [u8; 4] = [0, 0, 0, 1];
/// `NFTA_TARGET_NAME`: a target of iptables, used by iptables-nft.
const TARGET_NAME: u16 = 1;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;

/// A rule as far as it can be read without its sets.
pub(super) struct Read {
    /// With the position still to be counted.
    pub(super) rule: Rule,
    /// What decides whether the rule is for M.
    pub(super) lookup: Option<Lookup>,
}

/// Reads a rule; `None` when it lacks what every rule has.
pub(super) fn read(table: &Table, message: &RuleMessage) -> Option<Read> {
    let (mut chain, mut handle, mut judge) = (None, None, Judge::default());
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Chain(name) => chain = Some(name.clone()),
            RuleAttribute::Handle(number) => handle = Some(*number),
            RuleAttribute::Expressions(expressions) => expressions.iter().for_each(|each| judge.take(each)),
            _ => {}
        }
    }
    let place = Place::Nft { family: family_name(table.family), table: table.name.clone(), handle: handle? };
    let Judge { destination, action, lookup, .. } = judge;
    Some(Read { rule: Rule { place, chain: chain?, position: 0, destination, action }, lookup })
}

const fn family_name(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        _ => "inet",
    }
}

/// Goes through the expressions of one rule.
struct Judge {
    /// What a packet to M would have put into the register that was loaded last.
    loaded: Option<Vec<u8>>,
    destination: Destination,
    action: Action,
    lookup: Option<Lookup>,
}

impl Default for Judge {
    fn default() -> Self {
        Self { loaded: None, destination: Destination::Any, action: Action::Other, lookup: None }
    }
}

impl Judge {
    fn take(&mut self, expression: &ListAttribute<ExpressionAttribute>) {
        let ListAttribute::Element(parts) = expression else { return };
        for part in parts {
            match part {
                ExpressionAttribute::Data(Expressions::Payload(payload)) => self.loaded = loaded(payload),
                ExpressionAttribute::Data(Expressions::Bitwise(bitwise)) => self.mask(bitwise),
                ExpressionAttribute::Data(Expressions::Cmp(cmp)) => self.compare(cmp),
                ExpressionAttribute::Data(Expressions::Lookup(lookup)) => self.look_up(lookup),
                ExpressionAttribute::Data(Expressions::Meta(_)) => self.loaded = None,
                ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
                    if rewrites(expression_type, attributes) =>
                {
                    self.action = Action::Rewrite;
                }
                // Without attributes it has no data part.
                ExpressionAttribute::Name(name) if name == "redir" => self.action = Action::Rewrite,
                _ => {}
            }
        }
    }

    fn mask(&mut self, bitwise: &[Bitwise]) {
        let Some(loaded) = &mut self.loaded else { return };
        for attribute in bitwise {
            if let Bitwise::Mask(DataAttribute::Value(mask)) = attribute {
                loaded.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
            }
        }
    }

    fn compare(&mut self, cmp: &[Cmp]) {
        let Some(loaded) = self.loaded.take() else { return };
        let equal = cmp.iter().any(|part| matches!(part, Cmp::Data(DataAttribute::Value(value)) if *value == loaded));
        let operator = cmp.iter().find_map(|part| match part {
            Cmp::Op(operator) => Some(*operator),
            _ => None,
        });
        match (operator, equal) {
            (Some(Operator::Equal), true) => self.destination = Destination::Imds,
            (Some(Operator::Equal), false) | (Some(Operator::NotEqual), true) => {
                self.destination = Destination::Elsewhere;
            }
            _ => {}
        }
    }

    fn look_up(&mut self, lookup: &[LookupAttribute]) {
        let Some(imds) = self.loaded.take() else { return };
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

/// The bytes of M that are loaded, when it is a destination that is.
fn loaded(payload: &[Payload]) -> Option<Vec<u8>> {
    let (mut base, mut offset, mut len) = (None, None, None);
    for attribute in payload {
        match attribute {
            Payload::Base(value) => base = Some(*value),
            Payload::Offset(value) => offset = Some(*value),
            Payload::Len(value) => len = usize::try_from(*value).ok(),
            _ => {}
        }
    }
    let (_, family) = DESTINATION.into_iter().find(|&(at, _)| base == Some(NETWORK_HEADER) && offset == Some(at))?;
    let imds = match family.imds() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    imds.get(..len?).map(<[u8]>::to_vec)
}

/// Whether an expression gives packets another destination.
fn rewrites(expression: &str, attributes: &[DefaultNla]) -> bool {
    let value = |kind| attributes.iter().find(|attribute| attribute.kind() == kind).map(bytes);
    match expression {
        "redir" => true,
        "nat" => value(NAT_TYPE).is_some_and(|kind| kind == NAT_DESTINATION),
        "target" => value(TARGET_NAME).is_some_and(|name| {
            let name = name.strip_suffix(&[0]).unwrap_or(&name);
            matches!(name, b"DNAT" | b"REDIRECT")
        }),
        _ => false,
    }
}

fn bytes(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}

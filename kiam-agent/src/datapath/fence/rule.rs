//! The rules of the fence, as netlink messages.

use super::{PREF_ALL, PREF_END, PREF_OWN, PROTOCOL};
use crate::datapath::node::family::{Family, TABLE};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::net::IpAddr;

/// Returns `5: iif lo to IMDS goto 7`: `iif lo` selects the packets of the node's own sockets (`flowi_iif`,
/// net/ipv4/route.c).
pub(super) fn own(family: Family) -> RuleMessage {
    let mut rule = to_imds(family, PREF_OWN, RuleAction::Goto);
    rule.attributes.extend([RuleAttribute::Iifname("lo".into()), RuleAttribute::Goto(PREF_END)]);
    rule
}

/// Returns `6: to IMDS lookup 4242`, without a port or protocol: the rule is for every packet to the IMDS, and programs
/// that look up a route (`bpf_fib_lookup`) set neither.
pub(super) fn all(family: Family) -> RuleMessage {
    let mut rule = to_imds(family, PREF_ALL, RuleAction::ToTable);
    rule.attributes.push(RuleAttribute::Table(TABLE));
    rule
}

/// Returns `7: nop`, where the node's own packets continue.
pub(super) fn end(family: Family) -> RuleMessage {
    new(family, PREF_END, RuleAction::Nop)
}

fn new(family: Family, preference: u32, action: RuleAction) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family.address_family();
    rule.header.action = action;
    rule.attributes = vec![RuleAttribute::Priority(preference), RuleAttribute::Protocol(PROTOCOL)];
    rule
}

fn to_imds(family: Family, preference: u32, action: RuleAction) -> RuleMessage {
    let mut rule = new(family, preference, action);
    rule.header.dst_len = family.prefix_len();
    rule.attributes.push(RuleAttribute::Destination(family.imds()));
    rule
}

/// Returns whether a rule of the node has the effect of ours, whichever program added it. A rule with further selectors
/// does not match all packets, so it is a different one.
pub(super) fn is_same(present: &RuleMessage, ours: &RuleMessage) -> bool {
    let (theirs, ours_header) = (&present.header, &ours.header);
    let header = theirs.action == ours_header.action
        && theirs.dst_len == ours_header.dst_len
        && theirs.src_len == 0
        && theirs.tos == 0
        && theirs.flags.bits() & FIB_RULE_INVERT == 0;
    let complete = ours.attributes.iter().filter(|attribute| does_something(attribute));
    let narrower =
        present.attributes.iter().any(|attribute| selects(attribute) && !ours.attributes.contains(attribute));
    header && !narrower && complete.into_iter().all(|attribute| present.attributes.contains(attribute))
}

/// Flag of a rule for the packets that its selectors do not match, `not` (include/uapi/linux/fib_rules.h).
const FIB_RULE_INVERT: u32 = 2;

fn does_something(attribute: &RuleAttribute) -> bool {
    !matches!(attribute, RuleAttribute::Protocol(_))
}

fn selects(attribute: &RuleAttribute) -> bool {
    matches!(
        attribute,
        RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::Source(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::L3MDev(true)
            | RuleAttribute::TunId(_)
    )
}

/// Returns the rules of others that pods' packets to the IMDS meet before ours, as `ip rule` shows them. Rules that
/// select by mark, interface or source are left out: they are for certain packets, which the node's operator has
/// chosen.
pub(super) fn ahead(present: &[RuleMessage], family: Family) -> Vec<String> {
    let ours = all(family);
    let before = present.iter().take_while(|rule| !is_same(rule, &ours) && preference(rule) <= PREF_ALL);
    before.filter(|rule| may_take(rule, family)).map(describe).collect()
}

/// Returns whether a rule routes packets to the IMDS, whatever their source. The kernel's own rule for local addresses
/// does not: the IMDS is not a local address.
fn may_take(rule: &RuleMessage, family: Family) -> bool {
    let narrow = |attribute: &RuleAttribute| selects(attribute);
    let covers = rule.attributes.iter().all(|attribute| match attribute {
        RuleAttribute::Destination(address) => covers(*address, rule.header.dst_len, family.imds()),
        _ => true,
    });
    let acts = !matches!(rule.header.action, RuleAction::Goto | RuleAction::Nop);
    acts && covers && table(rule) != TABLE_LOCAL && !rule.attributes.iter().any(narrow) && rule.header.src_len == 0
}

/// `RT_TABLE_LOCAL` (include/uapi/linux/rtnetlink.h).
const TABLE_LOCAL: u32 = 255;

fn table(rule: &RuleMessage) -> u32 {
    let wide = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or_else(|| rule.header.table.into())
}

fn covers(network: IpAddr, len: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or_default();
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or_default();
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

fn describe(rule: &RuleMessage) -> String {
    let to = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Destination(address) => Some(format!(" to {address}/{}", rule.header.dst_len)),
        _ => None,
    });
    format!("pref {}{} (table {})", preference(rule), to.unwrap_or_default(), table(rule))
}

/// Returns the preference of a rule.
pub(super) fn preference(rule: &RuleMessage) -> u32 {
    let preference = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(preference) => Some(*preference),
        _ => None,
    });
    preference.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_with_other_selectors_or_action_differs() {
        let ours = all(Family::V4);
        let mut listed = ours.clone();
        listed.attributes.retain(does_something);
        listed.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
        assert!(is_same(&listed, &ours), "the kernel adds attributes of its own");

        let mut marked = listed.clone();
        marked.attributes.push(RuleAttribute::FwMark(1));
        assert!(!is_same(&marked, &ours), "packets without the mark would pass");
        let mut inverted = listed.clone();
        inverted.header.flags = netlink_packet_route::rule::RuleFlags::from_bits_retain(FIB_RULE_INVERT);
        assert!(!is_same(&inverted, &ours));
        let mut elsewhere = listed.clone();
        elsewhere.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Table(_)));
        elsewhere.attributes.push(RuleAttribute::Table(254));
        assert!(!is_same(&elsewhere, &ours));
        assert!(!is_same(&own(Family::V4), &ours));
        assert!(!is_same(&all(Family::V6), &ours));
        let mut without_lo = own(Family::V4);
        without_lo.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Iifname(_)));
        assert!(!is_same(&without_lo, &own(Family::V4)), "it would exempt pods, too");
    }

    /// Rules before ours that may take pods' packets to the IMDS are listed; narrower ones and later ones are not.
    #[test]
    fn earlier_rules_for_pods_packets_are_listed() {
        let table = |preference, table: u32, attributes: &[RuleAttribute]| {
            let mut rule = new(Family::V4, preference, RuleAction::ToTable);
            rule.header.dst_len = if attributes.is_empty() { 0 } else { 16 };
            rule.attributes.push(RuleAttribute::Table(table));
            rule.attributes.extend_from_slice(attributes);
            rule
        };
        let to = |address: &str| RuleAttribute::Destination(address.parse().unwrap());
        let listed = |theirs: RuleMessage| ahead(&[theirs, own(Family::V4), all(Family::V4)], Family::V4);
        assert_eq!(listed(table(1, 100, &[])), ["pref 1 (table 100)"]);
        assert_eq!(listed(table(1, 100, &[to("169.254.0.0")])), ["pref 1 to 169.254.0.0/16 (table 100)"]);
        assert!(listed(table(0, TABLE_LOCAL, &[])).is_empty());
        assert!(listed(table(1, 100, &[to("10.0.0.0")])).is_empty());
        assert!(listed(table(1, 100, &[RuleAttribute::FwMark(2)])).is_empty());
        assert!(listed(table(7, 100, &[])).is_empty(), "after ours");
        let behind = [own(Family::V4), all(Family::V4), table(6, 100, &[])];
        assert!(ahead(&behind, Family::V4).is_empty(), "rules of the same preference are in the order of creation");
    }
}

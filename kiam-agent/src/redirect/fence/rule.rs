//! The rules of the fence, as netlink messages.

use super::{PREF_ALL, PREF_END, PREF_OWN, PROTOCOL, TABLE, family::Family};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

/// `5: iif lo to M goto 7`: `iif lo` selects what the node's own sockets send (`flowi_iif`, net/ipv4/route.c).
pub(super) fn own(family: Family) -> RuleMessage {
    let mut rule = to_imds(family, PREF_OWN, RuleAction::Goto);
    rule.attributes.extend([RuleAttribute::Iifname("lo".into()), RuleAttribute::Goto(PREF_END)]);
    rule
}

/// `6: to M lookup 4242`, without a port or protocol: every packet to M is the metadata service's, and programs that ask
/// the kernel for a route (`bpf_fib_lookup`) fill in neither.
pub(super) fn all(family: Family) -> RuleMessage {
    let mut rule = to_imds(family, PREF_ALL, RuleAction::ToTable);
    rule.attributes.push(RuleAttribute::Table(TABLE));
    rule
}

/// `7: nop`, where the node's own packets go on.
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

/// Whether a rule of the node does what ours does, whoever made it. A rule that selects by more than ours lets packets
/// by, so it is another one.
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

/// `not`: the rule selects what its selectors don't (include/uapi/linux/fib_rules.h).
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

/// The rule's priority.
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
    fn only_a_rule_that_does_the_same_is_the_same() {
        let ours = all(Family::V4);
        let mut listed = ours.clone();
        listed.attributes.retain(does_something);
        listed.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
        assert!(is_same(&listed, &ours), "the kernel adds attributes of its own");

        let mut marked = listed.clone();
        marked.attributes.push(RuleAttribute::FwMark(1));
        assert!(!is_same(&marked, &ours), "a mark lets packets without it by");
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
}

//! The elements of a set that a rule looks its packets' destinations up in.

use crate::datapath::foreign::netfilter::Destination;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementList, SetElementMessage,
};

/// A rule's question whether a set holds M.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    /// The set's name, within the rule's table.
    pub(super) set: String,
    /// M as the set would hold it.
    pub(super) imds: Vec<u8>,
    /// The rule is for what is not in the set.
    pub(super) inverted: bool,
}

impl Lookup {
    /// What the rule says about M when these are the set's elements. Sets of ranges are judged by where M would be
    /// alone.
    pub(super) fn evaluate(&self, keys: &[Vec<u8>]) -> Destination {
        match (keys.contains(&self.imds), self.inverted) {
            (true, false) => Destination::Imds,
            (false, true) => Destination::Any,
            _ => Destination::Elsewhere,
        }
    }
}

/// The keys of the elements.
pub(super) fn keys(message: SetElementMessage) -> impl Iterator<Item = Vec<u8>> {
    let elements = message.attributes.into_iter().filter_map(|attribute| match attribute {
        SetElementList::Elements(elements) => Some(elements),
        _ => None,
    });
    let attributes = elements.flatten().filter_map(|element| match element {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    attributes.flatten().filter_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(key)) => Some(key),
        _ => None,
    })
}

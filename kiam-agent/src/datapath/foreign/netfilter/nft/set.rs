//! The elements of a set in which a rule looks up the destination of packets.

use crate::datapath::foreign::netfilter::Destination;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementList, SetElementMessage,
};

/// Lookup of the destination in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    /// The set's name, within the rule's table.
    pub(super) set: String,
    /// Address of the IMDS in the format of the set.
    pub(super) imds: Vec<u8>,
    /// True if the rule selects the destinations that are not in the set.
    pub(super) inverted: bool,
}

impl Lookup {
    /// Returns the destinations that the rule selects, given the elements of the set. In a set of ranges only a range
    /// that begins with the IMDS, or ends just before it, is recognised.
    pub(super) fn evaluate(&self, keys: &[Vec<u8>]) -> Destination {
        match (keys.contains(&self.imds), self.inverted) {
            (true, false) => Destination::Imds,
            (false, true) => Destination::Any,
            _ => Destination::Elsewhere,
        }
    }
}

/// Returns the keys of the elements.
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

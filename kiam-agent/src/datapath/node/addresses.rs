//! The node's own addresses, in the map by which the TC program refuses source addresses.

use crate::datapath::programs::object::Object;
use anyhow::Context as _;
use futures::TryStreamExt as _;
use kiam_common::abi::Address;
use netlink_packet_route::address::AddressAttribute;
use rtnetlink::Handle;
use std::{collections::HashSet, net::IpAddr};

/// Updates the map to the node's current addresses: adds new ones first, then removes old ones.
pub(crate) async fn sync(object: &mut Object, netlink: &Handle) -> anyhow::Result<()> {
    let wanted = list(netlink).await.context("listing the node's addresses")?;
    let mut map = object.node_addresses()?;
    let present: HashSet<[u8; 16]> = map.keys().filter_map(Result::ok).map(|address| address.octets).collect();
    for &octets in wanted.difference(&present) {
        map.insert(Address { octets }, 1, 0).context("the map of the node's addresses is full")?;
    }
    for &octets in present.difference(&wanted) {
        map.remove(&Address { octets }).context("removing an address that the node no longer has")?;
    }
    Ok(())
}

async fn list(netlink: &Handle) -> anyhow::Result<HashSet<[u8; 16]>> {
    let mut messages = netlink.address().get().execute();
    let mut addresses = HashSet::new();
    while let Some(message) = messages.try_next().await? {
        addresses.extend(own_address(&message.attributes).map(octets));
    }
    Ok(addresses)
}

/// Returns `Local` if present: on a point-to-point link `Address` is that of the peer, which may be a pod. IPv6 without
/// a peer has `Address` only (`inet6_fill_ifaddr`, net/ipv6/addrconf.c).
fn own_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

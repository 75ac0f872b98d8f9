//! The network devices of this node, and those that lead to a gateway.

use super::fence::{Family, TABLE};
use futures::TryStreamExt as _;
use netlink_packet_route::{
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAttribute, RouteMessage},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::{collections::BTreeSet, net::IpAddr};

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    /// The kernel's index.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// It has Ethernet headers.
    pub(crate) ethernet: bool,
    /// Its MAC address, if it has one of six bytes.
    pub(crate) mac: Option<[u8; 6]>,
    /// What it is.
    pub(crate) kind: Kind,
    /// The device that it is a port or member of: a bridge, a bond.
    pub(crate) master: Option<u32>,
    /// It is a port of a bridge.
    pub(crate) bridge_port: bool,
}

/// What a device is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// A bridge.
    Bridge,
    /// One end of a pair: a pod can be at the other end.
    Veth,
    /// The device of a virtual machine or the like: a pod can be behind it, too.
    Guest,
    /// Anything else: a network card, a tunnel, a VLAN, …
    #[default]
    Other,
}

/// All devices of this network namespace.
///
/// # Errors
/// The kernel's.
pub(crate) async fn devices(netlink: &Handle) -> anyhow::Result<Vec<Device>> {
    let messages: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
    Ok(messages.iter().filter_map(device).collect())
}

fn device(message: &LinkMessage) -> Option<Device> {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut device = Device { index: message.header.index, ethernet, ..Device::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(bytes) => device.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Controller(index) => device.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| describe(&mut device, info)),
            _ => {}
        }
    }
    (!device.name.is_empty()).then_some(device)
}

fn describe(device: &mut Device, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(InfoKind::Bridge) => device.kind = Kind::Bridge,
        LinkInfo::Kind(InfoKind::Veth) => device.kind = Kind::Veth,
        LinkInfo::Kind(InfoKind::Tun | InfoKind::Netkit) => device.kind = Kind::Guest,
        LinkInfo::PortKind(InfoPortKind::Bridge) => device.bridge_port = true,
        _ => {}
    }
}

/// The devices that a route of any table leads to a gateway over.
///
/// # Errors
/// The kernel's.
pub(crate) async fn with_gateway(netlink: &Handle, families: &[Family]) -> anyhow::Result<BTreeSet<u32>> {
    let mut devices = BTreeSet::new();
    for family in families {
        let mut query = RouteMessageBuilder::<IpAddr>::new().build();
        query.header.address_family = family.address_family();
        let mut routes = netlink.route().get(query).execute();
        while let Some(route) = routes.try_next().await? {
            devices.extend(gateway_devices(&route));
        }
    }
    Ok(devices)
}

/// Whether a route changes what this module tells.
pub(crate) fn matters(route: &RouteMessage) -> bool {
    route.attributes.contains(&RouteAttribute::Table(TABLE)) || !gateway_devices(route).is_empty()
}

fn gateway_devices(route: &RouteMessage) -> Vec<u32> {
    let mut devices = Vec::new();
    if has_gateway(&route.attributes) {
        devices.extend(route.attributes.iter().filter_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        }));
    }
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            let hops = hops.iter().filter(|hop| has_gateway(&hop.attributes));
            devices.extend(hops.map(|hop| hop.interface_index));
        }
    }
    devices
}

fn has_gateway(attributes: &[RouteAttribute]) -> bool {
    attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)))
}

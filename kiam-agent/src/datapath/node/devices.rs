//! The network devices of this node, and the routes that determine their roles.

use super::family::{Family, TABLE};
use crate::vpc_cni;
use futures::TryStreamExt as _;
use netlink_packet_route::{
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::{Handle, LinkGetRequest, RouteMessageBuilder};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    /// Index in the kernel.
    pub(crate) index: u32,
    /// Name.
    pub(crate) name: String,
    /// True if its packets have Ethernet headers.
    pub(crate) ethernet: bool,
    /// MAC address, if it has one of six bytes.
    pub(crate) mac: Option<[u8; 6]>,
    /// Kind.
    pub(crate) kind: Kind,
    /// Index of the bridge or bond that it belongs to.
    pub(crate) master: Option<u32>,
    /// True if it is a port of a bridge.
    pub(crate) bridge_port: bool,
    /// Index of the device below it, or of the other end of a pair.
    pub(crate) lower: Option<u32>,
    /// Network namespace of that device if it is not ours: the id that our namespace has for it.
    pub(crate) lower_in: Option<i32>,
}

/// Kind of a device, as far as it affects its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// A bridge.
    Bridge,
    /// One end of a pair; the other end can be in a pod.
    Veth,
    /// Device of a virtual machine or the like, which can lead to a pod, too.
    Guest,
    /// A macvlan or ipvlan device: its packets bypass the network stack of the namespace of the device below it.
    Child,
    /// Anything else: a network card, a tunnel, a VLAN, …
    #[default]
    Other,
}

/// Lists the devices of this network namespace.
pub(crate) async fn list(netlink: &Handle) -> anyhow::Result<Vec<Device>> {
    dump(netlink.link().get()).await
}

/// Lists the devices of another network namespace, by the id that our namespace has for it.
pub(crate) async fn list_in(netlink: &Handle, namespace: i32) -> anyhow::Result<Vec<Device>> {
    let mut request = netlink.link().get();
    request.message_mut().attributes.push(LinkAttribute::IfNetnsId(namespace));
    dump(request).await
}

async fn dump(request: LinkGetRequest) -> anyhow::Result<Vec<Device>> {
    let messages: Vec<LinkMessage> = request.execute().try_collect().await?;
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
            LinkAttribute::Link(index) => device.lower = Some(*index),
            LinkAttribute::LinkNetNsId(namespace) => device.lower_in = Some(*namespace),
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
        LinkInfo::Kind(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap) => {
            device.kind = Kind::Child;
        }
        LinkInfo::PortKind(InfoPortKind::Bridge) => device.bridge_port = true,
        _ => {}
    }
}

/// Returns the devices that have a route to a gateway, in any routing table.
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

/// Returns the devices that have a route to an address that the VPC CNI gives to pods for IPv4 only ([`vpc_cni`]).
pub(crate) async fn with_egress_v4_route(netlink: &Handle) -> anyhow::Result<BTreeSet<u32>> {
    let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = netlink.route().get(query).execute().try_collect().await?;
    Ok(routes.iter().filter_map(egress_v4_device).collect())
}

fn egress_v4_device(route: &RouteMessage) -> Option<u32> {
    let within = route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => vpc_cni::contains(*address),
        _ => false,
    });
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    device.filter(|_| within && route.header.destination_prefix_length >= vpc_cni::PREFIX_LEN)
}

/// Returns whether a change of this route can change the result of this module or the fence.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: [u8; 4], len: u8) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.into(), len).output_interface(5).build()
    }

    /// A route to an address that the VPC CNI gives to pods for IPv4 only is recognised.
    #[test]
    fn egress_v4_routes_are_recognised() {
        for (to, len) in [([169, 254, 172, 1], 32), ([169, 254, 175, 255], 32), ([169, 254, 172, 0], 22)] {
            assert_eq!(egress_v4_device(&route(to, len)), Some(5), "{to:?}/{len}");
        }
        for (to, len) in [([169, 254, 176, 1], 32), ([169, 254, 171, 255], 32), ([169, 254, 0, 0], 16), ([0; 4], 0)] {
            assert_eq!(egress_v4_device(&route(to, len)), None, "{to:?}/{len}");
        }
    }
}

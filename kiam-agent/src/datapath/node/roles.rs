//! Roles of the node's devices: a device can lead to pods, be an uplink, or neither.

use super::devices::{Device, Kind};
use crate::config::InterfaceMatch;
use kiam_common::abi::Port;
use std::collections::{BTreeMap, BTreeSet};

/// Names of the probe's interface, and of the other end of that veth pair.
pub(crate) const PROBE: &str = "kiam-probe0";
pub(crate) const PROBE_PEER: &str = "kiam-probe1";

/// The devices that need a program, by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Devices that lead to pods.
    pub(crate) pod_sides: BTreeMap<u32, PodSide>,
    /// Devices that lead out of the node: name by index.
    pub(crate) uplinks: BTreeMap<u32, String>,
    /// Matched devices to which no program can be attached: name and reason.
    pub(crate) unfit: BTreeMap<u32, (String, &'static str)>,
    /// Names of all devices.
    pub(crate) names: BTreeMap<u32, String>,
    /// Kinds of all devices.
    pub(crate) kinds: BTreeMap<u32, Kind>,
}

/// A device that leads to pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSide {
    /// Name of the device.
    pub(crate) name: String,
    /// Kind of the device.
    pub(crate) kind: Kind,
    /// Present if it is a port of a bridge: the program on the port records connections, and the one on the bridge
    /// redirects them.
    pub(crate) port: Option<Port>,
}

impl PodSide {
    /// Returns whether it is the interface of the probe: it has the program like the interfaces of pods, but no pod.
    pub(crate) fn is_probe(&self) -> bool {
        self.name == PROBE
    }
}

impl Roles {
    /// Determines the roles. `gateways`: the devices that have a route to a gateway.
    pub(crate) fn of(devices: &[Device], pattern: &InterfaceMatch, gateways: &BTreeSet<u32>) -> Self {
        let names = devices.iter().map(|device| (device.index, device.name.clone())).collect();
        let kinds = devices.iter().map(|device| (device.index, device.kind)).collect();
        let mut roles = Self { names, kinds, ..Self::default() };
        let matched = |device: &&Device| match device.name.as_str() {
            PROBE => true,
            PROBE_PEER => false,
            name => pattern.matches(name),
        };
        for device in devices.iter().filter(matched) {
            roles.add_matched(device, devices);
        }
        roles.add_ports_of_matched_bridges(devices, pattern, gateways);
        roles.add_uplinks(devices, gateways);
        roles
    }

    fn add_matched(&mut self, device: &Device, devices: &[Device]) {
        let (name, kind) = (device.name.clone(), device.kind);
        if !device.ethernet {
            self.unfit.insert(device.index, (name, "it has no Ethernet header"));
            return;
        }
        if !device.bridge_port {
            self.pod_sides.insert(device.index, PodSide { name, kind, port: None });
            return;
        }
        match bridge_of(device, devices) {
            Some((bridge, port)) => {
                // The program on the bridge redirects the packets that arrive by this port.
                let redirect = PodSide { name: bridge.name.clone(), kind: Kind::Bridge, port: None };
                self.pod_sides.entry(bridge.index).or_insert(redirect);
                self.pod_sides.insert(device.index, PodSide { name, kind, port: Some(port) });
            }
            None => {
                self.unfit.insert(device.index, (name, "it is a port of a bridge that is not visible to the agent"));
            }
        }
    }

    /// Adds those ports of matched bridges that can lead to a pod: the pattern matches the bridge, and names no ports.
    fn add_ports_of_matched_bridges(&mut self, devices: &[Device], pattern: &InterfaceMatch, gateways: &BTreeSet<u32>) {
        for device in devices {
            let Some((bridge, port)) = bridge_of(device, devices) else { continue };
            let can_be =
                device.ethernet && matches!(device.kind, Kind::Veth | Kind::Guest) && !gateways.contains(&device.index);
            if can_be && pattern.matches(&bridge.name) && !pattern.excludes(&device.name) {
                let side = PodSide { name: device.name.clone(), kind: device.kind, port: Some(port) };
                self.pod_sides.entry(device.index).or_insert(side);
            }
        }
    }

    /// Adds the devices with a gateway, and their ports and members, except ports that lead to pods.
    fn add_uplinks(&mut self, devices: &[Device], gateways: &BTreeSet<u32>) {
        for device in devices {
            let under_one = device.master.is_some_and(|master| gateways.contains(&master));
            let is_pod_port = self.pod_sides.get(&device.index).is_some_and(|side| side.port.is_some());
            if (gateways.contains(&device.index) || under_one && !is_pod_port) && device.ethernet {
                self.uplinks.insert(device.index, device.name.clone());
            }
        }
    }
}

fn bridge_of<'a>(device: &Device, devices: &'a [Device]) -> Option<(&'a Device, Port)> {
    let master = device.master.filter(|_| device.bridge_port)?;
    let bridge = devices.iter().find(|device| device.index == master)?;
    Some((bridge, Port { bridge: master, mac: bridge.mac?, pad: [0; 2] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn device(index: u32, name: &str, kind: Kind, bridge: Option<u32>) -> Device {
        let mac = Some(MAC);
        let name = name.to_owned();
        let bridge_port = bridge.is_some();
        Device { index, name, ethernet: true, mac, kind, master: bridge, bridge_port, ..Device::default() }
    }

    fn node() -> Vec<Device> {
        vec![
            device(2, "eth0", Kind::Other, None),
            device(3, "cali1", Kind::Veth, None),
            device(4, "cni0", Kind::Bridge, None),
            device(5, "vethA", Kind::Veth, Some(4)),
            device(6, "br0", Kind::Bridge, None),
            device(7, "eth1", Kind::Other, Some(6)),
            device(8, "cali2", Kind::Veth, Some(6)),
            Device { bridge_port: false, ..device(9, "eth2", Kind::Other, Some(10)) },
            device(10, "bond0", Kind::Other, None),
            Device { ethernet: false, ..device(11, "tunl0", Kind::Other, None) },
        ]
    }

    fn roles(patterns: &[&str], gateways: &[u32]) -> Roles {
        Roles::of(&node(), &InterfaceMatch::parse(patterns).unwrap(), &gateways.iter().copied().collect())
    }

    fn routed(roles: &Roles) -> Vec<u32> {
        roles.pod_sides.iter().filter(|(_, side)| side.port.is_none()).map(|(&index, _)| index).collect()
    }

    fn ports(roles: &Roles) -> Vec<(u32, u32)> {
        let port = |(&index, side): (&u32, &PodSide)| side.port.map(|port| (index, port.bridge));
        roles.pod_sides.iter().filter_map(port).collect()
    }

    /// A matched veth without a bridge is a pod side; a device with a gateway is an uplink.
    #[test]
    fn routed_veth_is_pod_side_gateway_is_uplink() {
        let roles = roles(&["cali1"], &[2]);
        assert_eq!((routed(&roles), ports(&roles)), (vec![3], vec![]));
        assert_eq!(roles.uplinks.keys().copied().collect::<Vec<_>>(), [2]);
    }

    /// A matched bridge adds its ports, and a matched port adds its bridge.
    #[test]
    fn matched_bridge_adds_ports_and_port_adds_bridge() {
        for pattern in ["cni0", "vethA"] {
            let roles = roles(&[pattern], &[2]);
            assert_eq!((routed(&roles), ports(&roles)), (vec![4], vec![(5, 4)]), "{pattern}");
            assert_eq!(roles.pod_sides.get(&5).and_then(|side| side.port).map(|port| port.mac), Some(MAC));
        }
    }

    /// All ports of a bridge that has the gateway are uplinks, except those of pods.
    #[test]
    fn pod_ports_of_an_uplink_bridge_are_no_uplinks() {
        let roles = roles(&["cali+"], &[6]);
        assert_eq!((routed(&roles), ports(&roles)), (vec![3, 6], vec![(8, 6)]));
        assert_eq!(roles.uplinks.keys().copied().collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn members_of_a_bond_are_uplinks() {
        assert_eq!(roles(&["cali1"], &[10]).uplinks.keys().copied().collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn exclusion_wins_over_a_matched_bridge() {
        assert_eq!(ports(&roles(&["cni0", "!vethA"], &[])), vec![]);
    }

    /// The interface of the probe has the program whatever the pattern matches, and its other end never has.
    #[test]
    fn probe_interface_is_always_a_pod_side() {
        let devices = [(12, PROBE), (13, PROBE_PEER)].map(|(index, name)| device(index, name, Kind::Veth, None));
        for pattern in ["cali+", "!eth0", "kiam+"] {
            let roles = Roles::of(&devices, &InterfaceMatch::parse(&[pattern]).unwrap(), &BTreeSet::new());
            assert_eq!(roles.pod_sides.keys().copied().collect::<Vec<_>>(), [12], "{pattern}");
            assert!(roles.pod_sides.values().all(PodSide::is_probe));
        }
    }

    #[test]
    fn device_without_ethernet_header_is_unfit() {
        let roles = roles(&["tunl0"], &[11]);
        assert!(roles.pod_sides.is_empty() && roles.uplinks.is_empty());
        assert_eq!(roles.unfit.get(&11), Some(&("tunl0".to_owned(), "it has no Ethernet header")));
    }
}

//! Pods behind a bridge of the node, as the CNI plugin `bridge`, kubenet, flannel and kube-router make them.

use super::{HOST_SIDE_MAC, PodNetwork, Topology, pod_mac, pod_v4, pod_v6, wait_until_it_carries};
use crate::node::netns::Netns;
use anyhow::{Context as _, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Address of the bridge: the gateway of the pods behind it.
pub const BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
/// Address of the bridge.
pub const BRIDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0xfffe);

impl Topology {
    /// Adds a bridge to the node, with the gateway's addresses.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        self.node.ip_batch(&[
            // A MAC address of its own, so that it does not take that of its first port.
            format!("link add {name} address {HOST_SIDE_MAC} type bridge forward_delay 0"),
            format!("addr add {BRIDGE_V4}/24 dev {name}"),
            format!("addr add {BRIDGE_V6}/64 dev {name} nodad"),
            format!("link set {name} up"),
        ])
    }

    /// Adds a pod with the addresses of number `number`, behind the port `veth<number>` of a bridge made by
    /// [`Self::add_bridge`].
    pub fn add_pod_on(&self, number: u8, bridge: &str) -> Result<PodNetwork> {
        let (v4, v6, interface) = (pod_v4(number), pod_v6(number), format!("veth{number}"));
        let netns = Netns::create(&format!("pod{number}"))?;
        let pod = PodNetwork { netns, v4, v6, interface };
        self.connect_port(&pod, number, bridge).with_context(|| format!("connect pod {number} to {bridge}"))?;
        wait_until_it_carries(&pod, "eth0")?;
        wait_until_it_carries(&self.node, &pod.interface)?;
        wait_until_it_carries(&self.node, bridge)?;
        Ok(pod)
    }

    fn connect_port(&self, pod: &PodNetwork, number: u8, bridge: &str) -> Result<()> {
        let PodNetwork { netns, v4, v6, interface } = pod;
        let mac = pod_mac(number);
        netns.ip_batch(&[
            format!("link add eth0 address {mac} type veth peer name {interface} netns {}", self.node.name()),
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
            format!("neigh replace {BRIDGE_V4} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent"),
            format!("neigh replace {BRIDGE_V6} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent"),
            format!("route add default via {BRIDGE_V4}"),
            format!("route add ::/0 via {BRIDGE_V6} dev eth0"),
        ])?;
        self.node.ip_batch(&[
            format!("link set {interface} master {bridge}"),
            format!("link set {interface} up"),
            format!("neigh replace {v4} lladdr {mac} dev {bridge} nud permanent"),
            format!("neigh replace {v6} lladdr {mac} dev {bridge} nud permanent"),
        ])
    }
}

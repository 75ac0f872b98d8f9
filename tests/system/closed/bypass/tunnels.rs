//! Encapsulated packets to the IMDS, and packets that the node forwards to the IMDS: the node itself decapsulates them.

use super::{Attacker, Control, host_network::HostPods, through_the_states};
use anyhow::{Result, ensure};
use kiam_tests::{
    node::{netns::Netns, process, topology::NODE_V4},
    system::{System, datapath_scenario},
};
use std::path::Path;

/// File that exists in guests of `cargo xtask vm`. Their kernels have every kind of device.
const GUEST: &str = "/etc/tests";
/// MAC address of the node's device of an overlay network, as flannel makes it.
const VXLAN_MAC: &str = "02:00:00:00:07:07";
/// Sysctls that make the node follow the source routes of packets.
const SOURCE_ROUTES: [(&str, &str); 6] = [
    ("net.ipv4.conf.all.accept_source_route", "1"),
    ("net.ipv4.conf.lo.accept_source_route", "1"),
    ("net.ipv4.conf.cali1.accept_source_route", "1"),
    ("net.ipv6.conf.all.seg6_enabled", "1"),
    ("net.ipv6.conf.lo.seg6_enabled", "1"),
    ("net.ipv6.conf.cali1.seg6_enabled", "1"),
];

/// Makes a link; returns `false` if this kernel does not support its kind, which no node's kernel lacks.
pub(super) fn has_link(node: &Netns, link: &str) -> Result<bool> {
    match node.ip(&format!("link add {link}")) {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:#}").contains("Unknown device type") => {
            ensure!(!Path::new(GUEST).exists(), "this guest does not support: {link}");
            println!("not supported by this kernel, so not tested here: {link} (see cargo xtask vm)");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Preparation of a node, and the routes tried on it. `prepare` returns `false` if this kernel does not support it.
struct Node {
    prepare: fn(&System) -> Result<bool>,
    routes: &'static [&'static str],
    /// MAC address that frames are sent to, if not the usual next hop.
    next_hop: Option<&'static str>,
}

impl Node {
    fn own_namespace(&self) {
        datapath_scenario(|system| {
            let pod = system.topology.add_pod(1)?;
            self.try_from(system, Attacker::behind_veth(&pod))
        });
    }

    fn host_network(&self) {
        datapath_scenario(|system| {
            // The pod whose interface has settings.
            let _pod = system.topology.add_pod(1)?;
            let pods = HostPods::enforced_on(system)?;
            self.try_from(system, pods.attacker())
        });
    }

    fn try_from(&self, system: &mut System, from: Attacker<'_>) -> Result<()> {
        if !(self.prepare)(system)? {
            return Ok(());
        }
        let from = Attacker { next_hop: self.next_hop.unwrap_or(from.next_hop), ..from };
        through_the_states(system, self.routes, from, Control::Arrives)
    }
}

/// An overlay as flannel makes it: the node decapsulates packets, whatever their sender.
const OVERLAY: Node = Node {
    prepare: |system| {
        let link = format!("vxlan7 address {VXLAN_MAC} type vxlan id 7 dstport 4789 nolearning");
        let has = has_link(&system.topology.node, &link)?;
        system.topology.node.ip("link set vxlan7 up")?;
        Ok(has)
    },
    routes: &["vxlan"],
    next_hop: Some(VXLAN_MAC),
};

/// A tunnel as Calico makes it.
const IP_IN_IP: Node = Node {
    prepare: |system| {
        let has = has_link(&system.topology.node, &format!("tunnel7 type ipip local {NODE_V4}"))?;
        if has {
            system.topology.node.ip("link set tunnel7 up")?;
        }
        Ok(has)
    },
    routes: &["ip-in-ip"],
    next_hop: None,
};

/// The pod's side has a device for a tag, so packets with the tag arrive by another interface.
const VLAN: Node = Node {
    prepare: |system| {
        let has = has_link(&system.topology.node, "vlan5 link cali1 type vlan id 5")?;
        if has {
            system.topology.node.ip("link set vlan5 up")?;
        }
        Ok(has)
    },
    routes: &["packet-vlan"],
    next_hop: None,
};

const SOURCE_ROUTED: Node = Node {
    prepare: |system| {
        SOURCE_ROUTES.iter().try_for_each(|(key, value)| system.topology.node.sysctl(key, value))?;
        Ok(true)
    },
    routes: &["raw-source-route-by-node", "raw-segments-by-node-v6"],
    next_hop: None,
};

/// Connection tracking as kube-proxy causes it. The kernel reassembles fragments before it tracks them.
const CONNTRACK: Node = Node {
    prepare: |system| {
        let mut nft = system.topology.node.command("nft");
        let chain =
            |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; ct state new counter; }};");
        nft.arg(format!("table inet tracked {{ {} {} }}", chain("output"), chain("prerouting")));
        process::run(&mut nft)?;
        Ok(true)
    },
    routes: &["raw-fragments-v4", "raw-fragments-v6", "udp-long-v4", "udp-long-v6", "tcp-v4", "raw-syn-v6"],
    next_hop: None,
};

#[test]
fn a_vlan_device_on_the_pods_interface() {
    VLAN.own_namespace();
}

macro_rules! cells {
    ($($name:ident: $node:ident;)*) => {
        /// A pod in its own network namespace.
        mod own_namespace {
            $(
                #[test]
                fn $name() {
                    super::$node.own_namespace();
                }
            )*
        }

        /// A pod on the node's network, enforced.
        mod host_network {
            $(
                #[test]
                fn $name() {
                    super::$node.host_network();
                }
            )*
        }
    };
}

cells! {
    an_overlay_of_the_node: OVERLAY;
    an_ip_in_ip_tunnel_of_the_node: IP_IN_IP;
    a_node_that_follows_source_routes: SOURCE_ROUTED;
    a_node_that_tracks_connections: CONNTRACK;
}

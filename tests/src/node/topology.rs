//! The network of every test:
//!
//! ```text
//! uplink (fake IMDS, STS) ── node (server, agent) ── cali<N> ── pods
//! ```
//!
//! Pods are routed as Calico does it: a /32 and a /128, a gateway that is not their own address, the host side of the
//! veth with a fixed MAC and without an address. Nothing here has a route to the machine's own network.

mod bridge;

pub use bridge::{BRIDGE_V4, BRIDGE_V6};

use crate::{eventually::eventually, node::netns::Netns};
use anyhow::{Context as _, Result, ensure};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
    time::Duration,
};

/// IPv4 address of the IMDS.
pub const IMDS_V4: Ipv4Addr = Ipv4Addr::from_octets(kiam_common::abi::IMDS_V4);
/// IPv6 address of the IMDS.
pub const IMDS_V6: Ipv6Addr = Ipv6Addr::from_octets(kiam_common::abi::IMDS_V6);
/// Address of the node on the network of the uplink.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// Address of the node on the network of the uplink.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 1);
/// Address of the uplink on that network.
pub const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
/// Address of the uplink on that network.
pub const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 2);
/// Another host on that network, in some tests.
pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 77);
/// Address of STS, behind the uplink.
pub const STS_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 1, 1);
/// Interface of the node towards the uplink.
pub const UPLINK_INTERFACE: &str = "eth0";
/// MAC address of the uplink's end: the next hop of everything that leaves the node.
pub const UPLINK_MAC: &str = "02:00:00:00:08:02";
/// Name of the node in Kubernetes.
pub const NODE_NAME: &str = "node-a";

/// MAC address of the node's end towards the uplink. Neighbours are set by hand: resolving them would cost each test a
/// second.
pub const NODE_MAC: &str = "02:00:00:00:08:01";
/// Gateway of every pod (Calico's).
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Gateway of every pod: the link-local address that belongs to [`HOST_SIDE_MAC`].
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// MAC address of the host side of every pod's veth (Calico's): the next hop of everything that leaves a pod.
pub const HOST_SIDE_MAC: &str = "ee:ee:ee:ee:ee:ee";

/// Sysctls of the uplink and the node. Duplicate address detection would cost each test a second.
const ROUTER_SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

/// The uplink and the node. Pods are made by [`Topology::add_pod`] and live as long as the caller keeps them.
#[derive(Debug)]
pub struct Topology {
    /// Namespace of the real IMDS.
    pub uplink: Netns,
    /// Namespace of the agent and the server.
    pub node: Netns,
}

impl Topology {
    /// Makes both, connected and with IPv4 and IPv6 forwarding on the node. Needs root.
    pub fn create() -> Result<Self> {
        let topology = Self { uplink: Netns::create("uplink")?, node: Netns::node()? };
        for netns in [&topology.uplink, &topology.node] {
            for (key, value) in ROUTER_SYSCTLS {
                netns.sysctl(key, value)?;
            }
        }
        topology.connect_uplink().context("connect the node to the uplink")?;
        wait_until_it_carries(&topology.node, UPLINK_INTERFACE)?;
        wait_until_it_carries(&topology.uplink, "eth0")?;
        Ok(topology)
    }

    fn connect_uplink(&self) -> Result<()> {
        let uplink_name = self.uplink.name();
        self.node.ip_batch(&[
            format!(
                "link add {UPLINK_INTERFACE} address {NODE_MAC} type veth peer name eth0 address {UPLINK_MAC} netns \
                 {uplink_name}"
            ),
            format!("addr add {NODE_V4}/24 dev {UPLINK_INTERFACE}"),
            format!("addr add {NODE_V6}/64 dev {UPLINK_INTERFACE} nodad"),
            format!("link set {UPLINK_INTERFACE} up"),
            format!("neigh replace {UPLINK_V4} lladdr {UPLINK_MAC} dev {UPLINK_INTERFACE} nud permanent"),
            format!("neigh replace {UPLINK_V6} lladdr {UPLINK_MAC} dev {UPLINK_INTERFACE} nud permanent"),
        ])?;
        self.uplink.ip_batch(&[
            format!("addr add {UPLINK_V4}/24 dev eth0"),
            format!("addr add {UPLINK_V6}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
            format!("neigh replace {NODE_V4} lladdr {NODE_MAC} dev eth0 nud permanent"),
            format!("neigh replace {NODE_V6} lladdr {NODE_MAC} dev eth0 nud permanent"),
            format!("addr add {IMDS_V4}/32 dev lo"),
            format!("addr add {IMDS_V6}/128 dev lo nodad"),
            format!("addr add {STS_V4}/32 dev lo"),
            format!("route add 10.9.0.0/24 via {NODE_V4}"),
            format!("route add fd00:9::/64 via {NODE_V6}"),
            // A missing route fails at once: a resolver must not wait for its timeout.
            "route add unreachable default".to_owned(),
            "route add unreachable ::/0".to_owned(),
        ])?;
        self.node.ip_batch(&[
            format!("route add default via {UPLINK_V4}"),
            format!("route add {IMDS_V4}/32 via {UPLINK_V4}"),
            format!("route add ::/0 via {UPLINK_V6}"),
            format!("route add {IMDS_V6}/128 via {UPLINK_V6}"),
            // A blackhole for the addresses of no pod, as with Calico: otherwise node and uplink would send the packets
            // to each other.
            "route add blackhole 10.9.0.0/16".to_owned(),
            "route add blackhole fd00:9::/48".to_owned(),
        ])
    }

    /// Adds a pod with the addresses of number `number`, behind the interface `cali<number>`.
    pub fn add_pod(&self, number: u8) -> Result<PodNetwork> {
        self.add_pod_behind(number, &format!("cali{number}"))
    }

    /// Adds a pod with the addresses of number `number`, behind an interface of any name.
    pub fn add_pod_behind(&self, number: u8, interface: &str) -> Result<PodNetwork> {
        self.add_pod_around(number, interface, |_| (), |_| ())
    }

    /// Like [`Topology::add_pod_behind`], with calls right before and right after the interface is made.
    pub fn add_pod_around(
        &self,
        number: u8,
        interface: &str,
        before: impl FnOnce(&PodNetwork),
        after: impl FnOnce(&PodNetwork),
    ) -> Result<PodNetwork> {
        let netns = Netns::create(&format!("pod{number}"))?;
        let pod = PodNetwork { v4: pod_v4(number), v6: pod_v6(number), interface: interface.to_owned(), netns };
        let connect = || {
            self.make_interface(&pod, number, || before(&pod))?;
            after(&pod);
            self.route_to(&pod, number)
        };
        connect().with_context(|| format!("connect pod {number} to the node"))?;
        wait_until_it_carries(&pod, "eth0")?;
        wait_until_it_carries(&self.node, interface)?;
        Ok(pod)
    }

    fn make_interface(&self, pod: &PodNetwork, number: u8, at_last: impl FnOnce()) -> Result<()> {
        let PodNetwork { netns, v4, v6, interface } = pod;
        let mac = pod_mac(number);
        let lines = [
            format!(
                "link add eth0 address {mac} type veth peer name {interface} address {HOST_SIDE_MAC} netns {}",
                self.node.name()
            ),
            format!("addr add {v4}/32 dev eth0"),
            format!("addr add {v6}/128 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
            format!("neigh replace {GATEWAY_V4} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent"),
            format!("neigh replace {GATEWAY_V6} lladdr {HOST_SIDE_MAC} dev eth0 nud permanent"),
            format!("route add {GATEWAY_V4} dev eth0 scope link"),
            format!("route add default via {GATEWAY_V4}"),
            format!("route add ::/0 via {GATEWAY_V6} dev eth0"),
        ];
        netns.ip_batch_after(at_last, &lines)
    }

    fn route_to(&self, pod: &PodNetwork, number: u8) -> Result<()> {
        let PodNetwork { netns: _, v4, v6, interface } = pod;
        let mac = pod_mac(number);
        self.node.ip_batch(&[
            format!("link set {interface} up"),
            format!("route add {v4}/32 dev {interface}"),
            format!("route add {v6}/128 dev {interface}"),
            format!("neigh replace {v4} lladdr {mac} dev {interface} nud permanent"),
            format!("neigh replace {v6} lladdr {mac} dev {interface} nud permanent"),
        ])
    }
}

/// A pod's network namespace. Dropping it removes the interface.
#[derive(Debug)]
pub struct PodNetwork {
    netns: Netns,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
    /// Name of its interface on the node.
    pub interface: String,
}

impl PodNetwork {
    /// Puts the pod's clients into this control group from now on ([`Netns::live_in`]).
    pub fn live_in(&mut self, cgroup: &std::path::Path) {
        self.netns.live_in(cgroup);
    }

    /// Returns its address of the same family as `other`.
    #[must_use]
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        // The kernel removes a namespace later, but the interface must be gone now: its name and its routes may be
        // reused at once.
        if let Err(error) = self.netns.ip("link del eth0") {
            eprintln!("{error:#}");
        }
    }
}

impl Deref for PodNetwork {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

/// Waits until an interface carries packets. The kernel enables it a moment after it is up; until then it drops
/// packets.
pub fn wait_until_it_carries(netns: &Netns, interface: &str) -> Result<()> {
    /// It takes a moment, and more only if the kernel's workers wait for a core.
    const SECONDS_MAX: u64 = 10;
    eventually(&format!("{interface} carries packets"), Duration::from_secs(SECONDS_MAX), || {
        let link = netns.ip(&format!("-o link show dev {interface}"))?;
        // For a child of another interface, the kernel reports no more than UNKNOWN.
        let is_up = link.contains("state UP") || link.contains("state UNKNOWN");
        ensure!(is_up && !link.contains("qdisc noop "), "{link}");
        Ok(())
    })
}

/// Returns the MAC address of the pod's end of its veth.
fn pod_mac(number: u8) -> String {
    format!("02:00:00:00:09:{number:02x}")
}

/// Returns the IPv4 address of pod `number`.
#[must_use]
pub const fn pod_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

/// Returns the IPv6 address of pod `number`.
#[must_use]
pub const fn pod_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number as u16)
}

/// Owner of an address in this topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// The node itself: agent, server, its other processes.
    Node,
    /// A pod.
    Pod,
    /// Another host on the network of the uplink; its traffic does not matter.
    Neighbour,
    /// Anything else, including the IMDS itself: must never be seen.
    Other,
}

impl Sender {
    /// Returns the owner of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) if v4 == NODE_V4 => Self::Node,
            IpAddr::V4(v4) if v4 == NEIGHBOUR_V4 => Self::Neighbour,
            IpAddr::V6(v6) if v6 == NODE_V6 => Self::Node,
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 9, 0] => Self::Pod,
            IpAddr::V6(v6) if v6.segments()[..2] == [0xfd00, 9] => Self::Pod,
            IpAddr::V4(_) | IpAddr::V6(_) => Self::Other,
        }
    }
}

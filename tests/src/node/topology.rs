//! The network of every test:
//!
//! ```text
//! uplink (stand-in for the real IMDS at M, STS) ── node (server, agent) ── cali<N> ── pods
//! ```
//!
//! Pods are routed as Calico does it: a /32 and a /128, a gateway that is not theirs, the host side of the veth with a
//! fixed MAC and without an address. Nothing here has a way to the machine's own network.

mod bridge;

pub use bridge::{BRIDGE_V4, BRIDGE_V6};

use crate::{eventually::eventually, node::netns::Netns};
use anyhow::{Context as _, Result, ensure};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
    time::Duration,
};

/// M over IPv4.
pub const IMDS_V4: Ipv4Addr = Ipv4Addr::from_octets(kiam_common::abi::IMDS_V4);
/// M over IPv6.
pub const IMDS_V6: Ipv6Addr = Ipv6Addr::from_octets(kiam_common::abi::IMDS_V6);
/// The node's address towards the uplink.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// The node's address towards the uplink.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 1);
/// The uplink's address towards the node.
pub const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
/// The uplink's address towards the node.
pub const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 2);
/// Another host of the uplink's network, where a test has one.
pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 77);
/// Where STS is, behind the uplink.
pub const STS_V4: Ipv4Addr = Ipv4Addr::new(10, 8, 1, 1);
/// The node's interface towards the uplink.
pub const UPLINK_INTERFACE: &str = "eth0";
/// The uplink's end: the next hop of all that leaves the node.
pub const UPLINK_MAC: &str = "02:00:00:00:08:02";
/// The node's name in Kubernetes.
pub const NODE_NAME: &str = "node-a";

/// The node's end towards the uplink. Neighbours are set by hand: looking them up would cost each test a second.
pub const NODE_MAC: &str = "02:00:00:00:08:01";
/// The gateway of every pod (Calico's).
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod: the link-local address that belongs to [`HOST_SIDE_MAC`].
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// The host side of every pod's veth (Calico's): the next hop of all that leaves a pod.
pub const HOST_SIDE_MAC: &str = "ee:ee:ee:ee:ee:ee";

/// Of the uplink and the node. Duplicate address detection would cost each test a second.
const ROUTER_SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

/// Uplink and node. Pods are made by [`Topology::add_pod`] and live as long as the caller keeps them.
#[derive(Debug)]
pub struct Topology {
    /// Where the real IMDS would be.
    pub uplink: Netns,
    /// Where the agent and the server run.
    pub node: Netns,
}

impl Topology {
    /// Builds both, connected and with IPv4 and IPv6 forwarding on the node.
    ///
    /// # Errors
    /// Not root, or `ip` is missing.
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
            // What leads nowhere is refused at once: a resolver must not wait for its time-out.
            "route add unreachable default".to_owned(),
            "route add unreachable ::/0".to_owned(),
        ])?;
        self.node.ip_batch(&[
            format!("route add default via {UPLINK_V4}"),
            format!("route add {IMDS_V4}/32 via {UPLINK_V4}"),
            format!("route add ::/0 via {UPLINK_V6}"),
            format!("route add {IMDS_V6}/128 via {UPLINK_V6}"),
            // What is for no pod ends here, as with Calico: else node and uplink would send it to one another.
            "route add blackhole 10.9.0.0/16".to_owned(),
            "route add blackhole fd00:9::/48".to_owned(),
        ])
    }

    /// A pod with the addresses of number `number`, behind the interface `cali<number>`.
    ///
    /// # Errors
    /// The interface or a route to the addresses is there already.
    pub fn add_pod(&self, number: u8) -> Result<PodNetwork> {
        self.add_pod_behind(number, &format!("cali{number}"))
    }

    /// A pod with the addresses of number `number` behind an interface of any name.
    ///
    /// # Errors
    /// The interface or a route to the addresses is there already.
    pub fn add_pod_behind(&self, number: u8, interface: &str) -> Result<PodNetwork> {
        self.add_pod_around(number, interface, |_| (), |_| ())
    }

    /// [`Topology::add_pod_behind`], with something done right before the interface is made, and right after.
    ///
    /// # Errors
    /// The interface or a route to the addresses is there already.
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

/// A pod's network namespace; its interface goes with it.
#[derive(Debug)]
pub struct PodNetwork {
    netns: Netns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its interface's name on the node.
    pub interface: String,
}

impl PodNetwork {
    /// Its clients are in this control group from now on ([`Netns::live_in`]).
    pub fn live_in(&mut self, cgroup: &std::path::Path) {
        self.netns.live_in(cgroup);
    }

    /// Its address of the family of `other`.
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
        // The kernel takes its time with a namespace, but the interface must be gone now: its name and its routes may
        // be used again at once.
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

/// The kernel makes an interface that is up carry packets a moment later; until then it drops them.
///
/// # Errors
/// It does not.
pub fn wait_until_it_carries(netns: &Netns, interface: &str) -> Result<()> {
    /// It takes a moment, and more only when the kernel's workers wait for a core.
    const SECONDS_MAX: u64 = 10;
    eventually(&format!("{interface} carries packets"), Duration::from_secs(SECONDS_MAX), || {
        let link = netns.ip(&format!("-o link show dev {interface}"))?;
        // Of a child of another interface the kernel says no more than that.
        let is_up = link.contains("state UP") || link.contains("state UNKNOWN");
        ensure!(is_up && !link.contains("qdisc noop "), "{link}");
        Ok(())
    })
}

/// The pod's end of its veth.
fn pod_mac(number: u8) -> String {
    format!("02:00:00:00:09:{number:02x}")
}

/// The IPv4 address of pod `number`.
#[must_use]
pub const fn pod_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

/// The IPv6 address of pod `number`.
#[must_use]
pub const fn pod_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number as u16)
}

/// Who an address belongs to in this topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// The node itself: agent, server, its other processes.
    Node,
    /// A pod.
    Pod,
    /// Another host of the uplink's network, whose own business this is.
    Neighbour,
    /// Anything else, M itself among it: never to be seen.
    Other,
}

impl Sender {
    /// Whose address this is.
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

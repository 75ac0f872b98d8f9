//! Contract between the eBPF programs and the agent: addresses, names, map layouts and their bounds.
//!
//! Changing a layout requires a new [`LAYOUT`], which is a new pin folder, so that an agent never opens maps of another
//! layout.

mod config;
mod connection_record;
mod owner;
#[cfg(feature = "user")]
mod plain_data;
mod reason;
mod redirected;

pub use config::{Config, FLAG_CGROUP_ONLY, FLAG_ENFORCE, Port};
pub use connection_record::{
    Address, BY_HOOK_NODE, BY_HOOK_POD, FLOWS_PER_OWNER, Flow, FlowKey, MAX_FLOWS, MAX_OWNERS, MAX_RING_PARTS,
    OWNER_IS_POD, PLACES_PER_PART, Places, Ring, RingPart,
};
pub use owner::{MAP_OWNER, Owner, RUN_DIR_LEN};
pub use reason::{Counters, REASONS, Reason};
pub use redirected::Redirected;

/// IPv4 address of the IMDS (AWS: "Instance metadata and user data").
pub const IMDS_V4: [u8; 4] = [169, 254, 169, 254];
/// IPv6 address of the IMDS, `fd00:ec2::254` (AWS: "Instance metadata and user data").
pub const IMDS_V6: [u8; 16] = [0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54];
/// The only port of the IMDS that is served, in host order.
pub const IMDS_PORT: u16 = 80;

/// Version of the map layouts, and the name of the pin folder below `kiam` in the bpffs.
pub const LAYOUT: &str = "v1";

/// TC ingress program of every matched interface.
pub const PROG_TC_INGRESS: &str = "kiam_tc_ingress";
/// `sk_lookup` program of the node's network namespace.
pub const PROG_SK_LOOKUP: &str = "kiam_sk_lookup";
/// TC egress program of every uplink.
pub const PROG_GUARD: &str = "kiam_guard";
/// TC ingress program of every uplink.
pub const PROG_GUARD_IN: &str = "kiam_guard_in";
/// `cgroup/connect4` program of the kubepods cgroup.
pub const PROG_CONNECT4: &str = "kiam_connect4";
/// `cgroup/connect6` program of the kubepods cgroup.
pub const PROG_CONNECT6: &str = "kiam_connect6";
/// `cgroup/getpeername4` program of the kubepods cgroup.
pub const PROG_PEERNAME4: &str = "kiam_peername4";
/// `cgroup/getpeername6` program of the kubepods cgroup.
pub const PROG_PEERNAME6: &str = "kiam_peername6";
/// `sock_ops` program of the kubepods cgroup.
pub const PROG_SOCKOPS: &str = "kiam_sockops";
/// `cgroup/setsockopt` program of the kubepods cgroup.
pub const PROG_SETSOCKOPT: &str = "kiam_setsockopt";

/// TC program that the agent runs itself (`BPF_PROG_TEST_RUN`): returns the port of the socket in a listener slot.
pub const PROG_SLOT: &str = "kiam_slot";
/// TC program that the agent runs itself (`BPF_PROG_TEST_RUN`): makes a packet arrive on an interface.
pub const PROG_PROBE: &str = "kiam_probe";
/// TC egress program of the probe's interface.
pub const PROG_PROBE_OUT: &str = "kiam_probe_out";

/// SOCKMAP of the agent's listening sockets, indexed by the `SLOT_…`.
pub const MAP_LISTENERS: &str = "kiam_listeners";
/// Per-CPU hash, interface index to [`Counters`]: the interfaces that the TC program is attached to.
pub const MAP_INTERFACES: &str = "kiam_interfaces";
/// Hash, interface index to [`Port`]: the interfaces of [`MAP_INTERFACES`] that are ports of a bridge.
pub const MAP_PORTS: &str = "kiam_ports";
/// Hash of the node's own addresses ([`Address`]), which no pod can have.
pub const MAP_NODE_ADDRS: &str = "kiam_node_addrs";
/// Per-CPU array of one [`Counters`], for verdicts without an attached interface: those of the backstop, the guard and
/// the cgroup hooks.
pub const MAP_STRAYS: &str = "kiam_strays";
/// Array of one [`Config`].
pub const MAP_CONFIG: &str = "kiam_config";
/// Hash, [`FlowKey`] to [`Flow`]: the connection records of the connections that are not accepted yet.
pub const MAP_FLOWS: &str = "kiam_flows";
/// Hash, [`RingPart`] to [`Places`]: the keys of the connection records of each owner.
pub const MAP_PLACES: &str = "kiam_places";
/// Hash, owner of connection records ([`Flow::owner`]) to its [`Ring`].
pub const MAP_RINGS: &str = "kiam_rings";
/// Socket storage, [`Redirected`]: the sockets that a cgroup hook redirected.
pub const MAP_SOCKETS: &str = "kiam_sockets";
/// Hash, identifier of a pod's cgroup to one of the `EXEMPT_…`: the exempt pods, which keep the node role.
pub const MAP_EXEMPT: &str = "kiam_exempt";
/// Value in [`MAP_EXEMPT`]: a pod of an exempt ServiceAccount. The programs treat both values alike.
pub const EXEMPT_LISTED: u8 = 1;
/// Value in [`MAP_EXEMPT`]: the pod of an agent, which only that agent adds; during an upgrade there are two.
pub const EXEMPT_AGENT: u8 = 2;

/// Array, listener slot to the TCP acknowledgment number of the last reply to a probe.
pub const MAP_PROBES: &str = "kiam_probes";

/// Global variable of the object: 1 if `bpf_sk_lookup` has `ingress_ifindex` (Linux 5.17 and later), else 0.
pub const GLOBAL_INGRESS_IFINDEX: &str = "KIAM_INGRESS_IFINDEX";
/// Global variable of the object: the helpers that the kernel provides to `cgroup/setsockopt` programs, one of the
/// `SOCKOPT_HELPERS_…`.
pub const GLOBAL_SOCKOPT_HELPERS: &str = "KIAM_SOCKOPT_HELPERS";
/// Value of [`GLOBAL_SOCKOPT_HELPERS`]: no helper for the network namespace or the pod (before Linux 5.15).
pub const SOCKOPT_HELPERS_NONE: u8 = 0;
/// Value of [`GLOBAL_SOCKOPT_HELPERS`]: a helper for the network namespace (`bpf_get_netns_cookie`, Linux 5.15).
pub const SOCKOPT_HELPERS_NETNS: u8 = 1;
/// Value of [`GLOBAL_SOCKOPT_HELPERS`]: also one for the pod (`bpf_get_current_ancestor_cgroup_id`, Linux 6.1).
pub const SOCKOPT_HELPERS_POD: u8 = 2;

/// Slot of the IPv4 listener in [`MAP_LISTENERS`].
pub const SLOT_V4: u32 = 0;
/// Slot of the IPv6 listener in [`MAP_LISTENERS`].
pub const SLOT_V6: u32 = 1;
/// Slot of the IPv4 listener on the node's own address, for pods that only the cgroup hooks redirect.
pub const SLOT_NODE_V4: u32 = 2;
/// Slot of the IPv6 listener on the node's own address.
pub const SLOT_NODE_V6: u32 = 3;
/// Number of slots in [`MAP_LISTENERS`].
pub const SLOTS: u32 = 4;

/// Maximum number of attached interfaces: ten times the pods of the largest EC2 node.
pub const MAX_INTERFACES: u32 = 8192;
/// Maximum number of node addresses: a node with kube-proxy in IPVS mode has one for each Service.
pub const MAX_NODE_ADDRS: u32 = 65_536;
/// Maximum number of exempt pods on one node.
pub const MAX_EXEMPT: u32 = 4096;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const _: () = {
    // The kernel stores at most 15 characters of a name (`BPF_OBJ_NAME_LEN`, include/uapi/linux/bpf.h).
    let names = [
        PROG_TC_INGRESS,
        PROG_SK_LOOKUP,
        PROG_GUARD,
        PROG_GUARD_IN,
        PROG_CONNECT4,
        PROG_CONNECT6,
        PROG_PEERNAME4,
        PROG_PEERNAME6,
        PROG_SOCKOPS,
        PROG_SETSOCKOPT,
        PROG_SLOT,
        PROG_PROBE,
        PROG_PROBE_OUT,
        MAP_PROBES,
        MAP_LISTENERS,
        MAP_INTERFACES,
        MAP_PORTS,
        MAP_NODE_ADDRS,
        MAP_STRAYS,
        MAP_CONFIG,
        MAP_FLOWS,
        MAP_PLACES,
        MAP_RINGS,
        MAP_SOCKETS,
        MAP_EXEMPT,
        MAP_OWNER,
    ];
    let mut index = 0;
    while index < names.len() {
        assert!(names[index].len() <= 15);
        index += 1;
    }
};

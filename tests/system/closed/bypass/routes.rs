//! The routes of `attack.py`, with one test per route and column.

use super::{
    Control::{Arrives, Cannot},
    host_network::host_network as on_node,
    own_namespace as in_pod,
};

const NO_VLAN: &str = "the node has no VLAN device for this tag";
const NO_TUNNEL: &str = "the node has no tunnel device, and nothing else decapsulates it";
const SOURCE_ROUTE: &str = "the node accepts no source routes (net.ipv4.conf.*.accept_source_route)";
const LOOPBACK_SOURCE: &str = "the kernel forwards no packet with a source in 127.0.0.0/8";
const OWN_SOURCE: &str = "to the node, its own address is a martian source";
const POD_FORWARDS_NOT: &str = "a pod's own loopback leads nowhere, because it does not forward";

macro_rules! cells {
    ($($name:ident: $route:literal, $own:expr, $host:expr;)*) => {
        /// A pod in its own network namespace.
        mod own_namespace {
            use super::*;
            $(
                #[test]
                fn $name() {
                    in_pod($route, $own);
                }
            )*
        }

        /// A pod on the node's network, enforced.
        mod host_network {
            use super::*;
            $(
                #[test]
                fn $name() {
                    on_node($route, $host);
                }
            )*
        }
    };
}

cells! {
    tcp_v4: "tcp-v4", Arrives, Arrives;
    tcp_v6: "tcp-v6", Arrives, Arrives;
    tcp_v4_mapped: "tcp-v4-mapped", Arrives, Arrives;
    tcp_fastopen_v4: "tcp-fastopen-v4", Arrives, Arrives;
    tcp_fastopen_v6: "tcp-fastopen-v6", Arrives, Arrives;
    tcp_fastopen_connect_v4: "tcp-fastopen-connect-v4", Arrives, Arrives;
    tcp_fastopen_connect_v6: "tcp-fastopen-connect-v6", Arrives, Arrives;
    tcp_mptcp_v4: "tcp-mptcp-v4", Arrives, Arrives;
    tcp_mptcp_v6: "tcp-mptcp-v6", Arrives, Arrives;
    tcp_io_uring: "tcp-io-uring", Arrives, Arrives;
    tcp_bound_to_device: "tcp-bound-to-device", Arrives, Arrives;
    tcp_port_8080: "tcp-port-8080", Arrives, Arrives;
    tcp_port_443_v6: "tcp-port-443-v6", Arrives, Arrives;
    host_octal: "host-octal", Arrives, Arrives;
    host_decimal: "host-decimal", Arrives, Arrives;
    host_hexadecimal: "host-hexadecimal", Arrives, Arrives;
    udp_v4: "udp-v4", Arrives, Arrives;
    udp_v6: "udp-v6", Arrives, Arrives;
    udp_connected_v4: "udp-connected-v4", Arrives, Arrives;
    udp_connected_v6: "udp-connected-v6", Arrives, Arrives;
    udp_long_v4: "udp-long-v4", Arrives, Arrives;
    udp_long_v6: "udp-long-v6", Arrives, Arrives;
    icmp_v4: "icmp-v4", Arrives, Arrives;
    icmp_v6: "icmp-v6", Arrives, Arrives;
    icmp_socket: "icmp-socket", Arrives, Arrives;
    raw_syn_v4: "raw-syn-v4", Arrives, Arrives;
    raw_syn_v6: "raw-syn-v6", Arrives, Arrives;
    raw_protocol_v4: "raw-protocol-v4", Arrives, Arrives;
    raw_extension_header_v6: "raw-extension-header-v6", Arrives, Arrives;
    raw_options: "raw-options", Arrives, Arrives;
    raw_source_route_loose: "raw-source-route-loose", Cannot(SOURCE_ROUTE), Arrives;
    raw_source_route_strict: "raw-source-route-strict", Cannot(SOURCE_ROUTE), Arrives;
    raw_fragment_first: "raw-fragment-first", Arrives, Arrives;
    raw_fragment_later: "raw-fragment-later", Arrives, Arrives;
    raw_fragments_v4: "raw-fragments-v4", Arrives, Arrives;
    raw_fragments_v6: "raw-fragments-v6", Arrives, Arrives;
    raw_ip_in_ip_to_imds: "raw-ip-in-ip-to-imds", Arrives, Arrives;
    packet_syn_v4: "packet-syn-v4", Arrives, Arrives;
    packet_syn_v6: "packet-syn-v6", Arrives, Arrives;
    packet_cooked: "packet-cooked", Arrives, Arrives;
    packet_qdisc_bypass: "packet-qdisc-bypass", Arrives, Arrives;
    packet_with_other_protocol: "packet-with-other-protocol", Arrives, Arrives;
    packet_udp: "packet-udp", Arrives, Arrives;
    packet_fragment: "packet-fragment", Arrives, Arrives;
    packet_vlan: "packet-vlan", Cannot(NO_VLAN), Arrives;
    packet_vlan_zero: "packet-vlan-zero", Arrives, Arrives;
    packet_double_vlan: "packet-double-vlan", Cannot(NO_VLAN), Arrives;
    packet_double_vlan_zero: "packet-double-vlan-zero", Arrives, Arrives;
    packet_triple_vlan_zero: "packet-triple-vlan-zero", Arrives, Arrives;
    packet_deep_vlan_zero: "packet-deep-vlan-zero", Arrives, Arrives;
    packet_on_loopback_v4: "packet-on-loopback-v4", Cannot(POD_FORWARDS_NOT), Arrives;
    packet_on_loopback_v6: "packet-on-loopback-v6", Cannot(POD_FORWARDS_NOT), Arrives;
    source_imds: "source-imds", Arrives, Arrives;
    source_loopback: "source-loopback", Cannot(LOOPBACK_SOURCE), Arrives;
    source_node: "source-node", Cannot(OWN_SOURCE), Arrives;
    source_other: "source-other", Arrives, Arrives;
    ip_in_ip_to_node: "ip-in-ip", Cannot(NO_TUNNEL), Cannot(NO_TUNNEL);
}

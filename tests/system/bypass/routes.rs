//! The routes of `attack.py`, one test each.

use super::{
    Control::{Arrives, Cannot},
    own_namespace,
};

const NO_VLAN: &str = "the node has no VLAN device for this tag";
const NO_TUNNEL: &str = "the node has no tunnel device, and nothing else unpacks it";
const SOURCE_ROUTE: &str = "the node accepts no source routes (net.ipv4.conf.*.accept_source_route)";

macro_rules! cells {
    ($($name:ident: $route:literal, $control:expr;)*) => {
        $(
            #[test]
            fn $name() {
                own_namespace($route, $control);
            }
        )*
    };
}

cells! {
    tcp_v4: "tcp-v4", Arrives;
    tcp_v6: "tcp-v6", Arrives;
    tcp_v4_mapped: "tcp-v4-mapped", Arrives;
    tcp_fastopen_v4: "tcp-fastopen-v4", Arrives;
    tcp_fastopen_v6: "tcp-fastopen-v6", Arrives;
    tcp_mptcp_v4: "tcp-mptcp-v4", Arrives;
    tcp_mptcp_v6: "tcp-mptcp-v6", Arrives;
    tcp_io_uring: "tcp-io-uring", Arrives;
    tcp_bound_to_device: "tcp-bound-to-device", Arrives;
    tcp_port_8080: "tcp-port-8080", Arrives;
    tcp_port_443_v6: "tcp-port-443-v6", Arrives;
    host_octal: "host-octal", Arrives;
    host_decimal: "host-decimal", Arrives;
    host_hexadecimal: "host-hexadecimal", Arrives;
    udp_v4: "udp-v4", Arrives;
    udp_v6: "udp-v6", Arrives;
    udp_connected_v4: "udp-connected-v4", Arrives;
    udp_connected_v6: "udp-connected-v6", Arrives;
    icmp_v4: "icmp-v4", Arrives;
    icmp_v6: "icmp-v6", Arrives;
    icmp_socket: "icmp-socket", Arrives;
    raw_syn_v4: "raw-syn-v4", Arrives;
    raw_syn_v6: "raw-syn-v6", Arrives;
    raw_protocol_v4: "raw-protocol-v4", Arrives;
    raw_extension_header_v6: "raw-extension-header-v6", Arrives;
    raw_options: "raw-options", Arrives;
    raw_source_route_loose: "raw-source-route-loose", Cannot(SOURCE_ROUTE);
    raw_source_route_strict: "raw-source-route-strict", Cannot(SOURCE_ROUTE);
    raw_fragment_first: "raw-fragment-first", Arrives;
    raw_fragment_later: "raw-fragment-later", Arrives;
    raw_ip_in_ip_to_m: "raw-ip-in-ip-to-m", Arrives;
    packet_syn_v4: "packet-syn-v4", Arrives;
    packet_syn_v6: "packet-syn-v6", Arrives;
    packet_cooked: "packet-cooked", Arrives;
    packet_qdisc_bypass: "packet-qdisc-bypass", Arrives;
    packet_says_other_protocol: "packet-says-other-protocol", Arrives;
    packet_udp: "packet-udp", Arrives;
    packet_fragment: "packet-fragment", Arrives;
    packet_vlan: "packet-vlan", Cannot(NO_VLAN);
    packet_vlan_zero: "packet-vlan-zero", Arrives;
    packet_double_vlan: "packet-double-vlan", Cannot(NO_VLAN);
    source_m: "source-m", Arrives;
    source_loopback: "source-loopback", Cannot("the kernel forwards nothing that comes from 127.0.0.0/8");
    source_node: "source-node", Cannot("the node takes its own address for a martian source");
    source_other: "source-other", Arrives;
    ip_in_ip_to_node: "ip-in-ip", Cannot(NO_TUNNEL);
}

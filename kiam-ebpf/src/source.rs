//! Source addresses that no pod can have, on any node. The node's own addresses are in a map.
//!
//! If the listener received a SYN from the IMDS to the IMDS, the node would send the SYN-ACK to the real IMDS; loopback
//! and multicast sources have similar effects.

use kiam_common::abi::{IMDS_V4, IMDS_V6};

/// Returns whether no pod can have this IPv4 address: the IMDS, 0.0.0.0/8 and 127.0.0.0/8 (RFC 6890), 224.0.0.0/4 and
/// 240.0.0.0/4.
#[must_use]
#[inline(always)]
pub const fn impossible_v4(source: [u8; 4]) -> bool {
    let [first, ..] = source;
    first == 0 || first == 127 || first >= 224 || u32::from_ne_bytes(source) == u32::from_ne_bytes(IMDS_V4)
}

/// Returns whether no pod can have this IPv6 address: the IMDS, `::/32` (unspecified, loopback, v4-mapped and
/// v4-compatible, RFC 4291), `ff00::/8`, and link-local `fe80::/10`, which is ambiguous without its interface.
#[must_use]
#[inline(always)]
pub const fn impossible_v6(source: [u8; 16]) -> bool {
    let [a, b, c, d, ..] = source;
    let reserved = a == 0 && b == 0 && c == 0 && d == 0;
    let link_local = a == 0xfe && (b & 0xc0) == 0x80;
    reserved || a == 0xff || link_local || u128::from_ne_bytes(source) == u128::from_ne_bytes(IMDS_V6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn ipv4() {
        let cases = [
            ("169.254.169.254", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("127.0.0.1", true),
            ("127.255.255.255", true),
            ("224.0.0.1", true),
            ("240.0.0.1", true),
            ("255.255.255.255", true),
            ("169.254.169.253", false),
            ("169.254.172.2", false),
            ("10.0.0.1", false),
            ("1.0.0.1", false),
            ("126.255.255.255", false),
            ("128.0.0.1", false),
            ("223.255.255.255", false),
        ];
        for (address, impossible) in cases {
            let octets = address.parse::<Ipv4Addr>().unwrap().octets();
            assert_eq!(impossible_v4(octets), impossible, "{address}");
        }
    }

    #[test]
    fn ipv6() {
        let cases = [
            ("fd00:ec2::254", true),
            ("::", true),
            ("::1", true),
            ("::ffff:10.0.0.1", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("ff02::1", true),
            ("fd00:ec2::253", false),
            ("fd00::1", false),
            ("fec0::1", false),
            ("2001:db8::1", false),
            ("64:ff9b::1", false),
        ];
        for (address, impossible) in cases {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            assert_eq!(impossible_v6(octets), impossible, "{address}");
        }
    }
}

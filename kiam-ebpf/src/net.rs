//! Numbers and layouts of the network protocols, and the addresses of the IMDS as the kernel's structures hold them.

use kiam_common::abi::{IMDS_V4, IMDS_V6};

/// Address family of IPv4 (include/linux/socket.h).
pub const AF_INET: u32 = 2;
/// Address family of IPv6 (include/linux/socket.h).
pub const AF_INET6: u32 = 10;
/// Protocol number of TCP (IANA).
pub const TCP: u8 = 6;

/// EtherTypes (IEEE 802 numbers) in network order, as `skb->protocol` holds them.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
    /// An 802.1Q tag.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// An 802.1ad tag, which has another tag inside.
    pub const QINQ: u16 = 0x88a8_u16.to_be();
}

/// Bytes of an Ethernet header without a VLAN tag (IEEE 802.3).
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an 802.1Q tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header (RFC 8200).
pub const IPV6_LEN: usize = 40;

/// Offset of the source address in an IPv4 header; the destination follows it.
pub const IPV4_SOURCE: usize = 12;
/// Offset of the source address in an IPv6 header; the destination follows it.
pub const IPV6_SOURCE: usize = 8;
/// Offset of the destination address in an IPv6 header.
pub const IPV6_DESTINATION: usize = 24;
/// Offset of the target's protocol address in an ARP packet for IPv4 over Ethernet (RFC 826).
pub const ARP_TARGET: usize = 24;

/// Offset of the acknowledgment number in a TCP header (RFC 9293).
pub const TCP_ACKNOWLEDGMENT: usize = 8;
/// Offset of the flags in a TCP header.
pub const TCP_FLAGS: usize = 13;
/// TCP flag of the packet that opens a connection, and of the reply to it.
pub const SYN: u8 = 0x02;
/// TCP flag of a packet that acknowledges another.
pub const ACK: u8 = 0x10;

/// [`IMDS_V4`] as one word in network order.
pub const IMDS_V4_WORD: u32 = u32::from_ne_bytes(IMDS_V4);
/// [`IMDS_V6`] as four words in network order.
pub const IMDS_V6_WORDS: [u32; 4] = words(IMDS_V6);

const fn words(octets: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_the_order_of_the_octets() {
        let octets: Vec<u8> = IMDS_V6_WORDS.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(octets, IMDS_V6);
    }
}

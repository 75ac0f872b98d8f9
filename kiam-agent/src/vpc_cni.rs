//! The addresses that pods of an IPv6 cluster have for IPv4 alone. Each node gives out the same ones, and the Kubernetes
//! API does not know them: such an address tells nothing about a pod.

use std::net::{IpAddr, Ipv4Addr};

/// The network out of which the VPC CNI gives an address to each pod (`egressPluginIpamSubnetV4` in its
/// `cmd/aws-vpc-cni`).
const NETWORK: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 0);
/// The length of its prefix.
pub(crate) const PREFIX_LEN: u8 = 22;

/// Whether an address is one of them.
pub(crate) const fn contains(address: Ipv4Addr) -> bool {
    (address.to_bits() ^ NETWORK.to_bits()) >> (Ipv4Addr::BITS - PREFIX_LEN as u32) == 0
}

/// What an address tells about the pod whose it is.
pub(crate) fn telling(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) if contains(v4) => None,
        _ => Some(address),
    }
}

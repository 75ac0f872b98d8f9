//! The egress addresses of the VPC CNI: addresses that pods of an IPv6 cluster have only for IPv4. Every node uses the
//! same ones, and the Kubernetes API does not contain them, so such an address does not identify a pod.

use std::net::{IpAddr, Ipv4Addr};

/// The network of these addresses (`egressPluginIpamSubnetV4` in `cmd/aws-vpc-cni` of the VPC CNI).
const NETWORK: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 0);
/// Length of the network's prefix, bits.
pub(crate) const PREFIX_LEN: u8 = 22;

/// Returns true if `address` is an egress address of the VPC CNI.
pub(crate) const fn contains(address: Ipv4Addr) -> bool {
    (address.to_bits() ^ NETWORK.to_bits()) >> (Ipv4Addr::BITS - PREFIX_LEN as u32) == 0
}

/// Returns `address` if it identifies a pod; `None` for a VPC-CNI egress address, which every node reuses.
pub(crate) fn identifying(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) if contains(v4) => None,
        _ => Some(address),
    }
}

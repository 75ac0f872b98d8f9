//! The two address families of the IMDS.

use kiam_common::abi::{IMDS_V4, IMDS_V6};
use netlink_packet_route::AddressFamily;
use rtnetlink::IpVersion;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of our routing table; only our rule leads to it.
pub(crate) const TABLE: u32 = 4242;

/// Address family of the IMDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// 169.254.169.254
    V4,
    /// fd00:ec2::254
    V6,
}

impl Family {
    /// Both families.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the name for messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Returns the name of the condition that the fence of this family is in place.
    pub(crate) const fn condition(self) -> &'static str {
        match self {
            Self::V4 => "fence-ipv4",
            Self::V6 => "fence-ipv6",
        }
    }

    /// Returns the address of the IMDS in this family.
    pub(crate) fn imds(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(IMDS_V4).into(),
            Self::V6 => Ipv6Addr::from(IMDS_V6).into(),
        }
    }

    /// Returns the number of bits of an address.
    pub(crate) const fn prefix_len(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub(in crate::datapath) const fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    pub(crate) const fn ip_version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

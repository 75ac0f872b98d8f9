//! The two address families of M.

use kiam_common::abi::{IMDS_V4, IMDS_V6};
use netlink_packet_route::AddressFamily;
use rtnetlink::IpVersion;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The routing table that only our rule leads to.
pub(crate) const TABLE: u32 = 4242;

/// An address family of M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// 169.254.169.254
    V4,
    /// fd00:ec2::254
    V6,
}

impl Family {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// For messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The name of the condition that this family's fence stands.
    pub(crate) const fn condition(self) -> &'static str {
        match self {
            Self::V4 => "fence-ipv4",
            Self::V6 => "fence-ipv6",
        }
    }

    /// M in this family.
    pub(crate) fn imds(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(IMDS_V4).into(),
            Self::V6 => Ipv6Addr::from(IMDS_V6).into(),
        }
    }

    /// Bits of M's address.
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

//! The node as the datapath sees it: its interfaces and their roles, its addresses, and the cgroups of pods.

pub(crate) mod addresses;
pub(crate) mod devices;
pub(crate) mod family;
pub(crate) mod interface_ages;
pub(crate) mod kubepods;
pub(crate) mod netlink;
pub(crate) mod roles;

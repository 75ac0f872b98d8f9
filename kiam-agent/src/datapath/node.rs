//! The node: its interfaces and their roles, its addresses, and the cgroups of pods.
//!
//! Reading order: [`devices`] (network devices and routes), [`roles`] (which devices lead to pods or out of the node),
//! [`addresses`], [`interface_ages`] (when each interface appeared), [`kubepods`] (cgroups of pods), [`netlink`]
//! (requests and changes), [`family`] (IPv4 and IPv6).

pub(crate) mod addresses;
pub(crate) mod devices;
pub(crate) mod family;
pub(crate) mod interface_ages;
pub(crate) mod kubepods;
pub(crate) mod netlink;
pub(crate) mod roles;

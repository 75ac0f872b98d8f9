//! Objects of other programs on the node that can keep packets from the datapath.
//!
//! Reading order: [`netfilter`] (reads the packet filter), [`nat`] (rules that redirect the IMDS), [`flowtables`]
//! (bypass the datapath), [`suspects`] (rules that may have dropped a probe), [`unserved`] (networks that cannot be
//! served).

pub(crate) mod flowtables;
pub(crate) mod nat;
pub(crate) mod netfilter;
pub(crate) mod suspects;
pub(crate) mod unserved;

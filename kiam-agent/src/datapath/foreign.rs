//! What others have on the node that can keep packets from the datapath: [`nat`] rules for the IMDS, [`flowtables`],
//! interfaces that cannot be served ([`unserved`]), and packet filter rules that may be the cause when a probe is lost
//! ([`suspects`]). [`netfilter`] reads the rules.

pub(crate) mod flowtables;
pub(crate) mod nat;
pub(crate) mod netfilter;
pub(crate) mod suspects;
pub(crate) mod unserved;

//! No pod reaches the real IMDS, on any route and in any state of the agent: the first promise of SECURITY.md.

pub(crate) mod boot;
mod bridges;
mod bypass;
mod foreign_nat;
pub(crate) mod layers;
mod neighbours;
mod networks;
mod probe;
mod programs;
mod repairs;
mod unserved;

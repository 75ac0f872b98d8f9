//! Ownership: the agent that may change the datapath of the node. [`node_lock`] detects other agents on the node,
//! [`owner`] records the agent that has claimed the datapath.

pub(crate) mod node_lock;
pub(crate) mod owner;

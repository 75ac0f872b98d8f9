//! Which agent may change the datapath of the node: [`node_lock`] says whether an agent lives here, [`owner`] which one has
//! claimed the datapath.

pub(crate) mod node_lock;
pub(crate) mod owner;

//! Starts, crashes, takeovers and removal of the agent.

mod crashes;
mod leftovers;
mod load;
mod newcomer;
mod owner;
mod stops;
pub(crate) mod upgrade;
mod upgrade_broken;

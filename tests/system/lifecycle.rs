//! Starts, crashes, takeovers and removal of the agent.

mod crashes;
mod fake_successor;
mod leftovers;
mod load;
mod owner;
mod stops;
pub(crate) mod upgrade;
mod upgrade_broken;

//! The way to the Kubernetes API: a client that notices when the other end has gone, and the pauses of a watch that fails.

mod client;
mod pauses;

pub use client::{ConnectError, connect};
pub use pauses::Pauses;

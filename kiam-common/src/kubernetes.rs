//! The Kubernetes API: a client that detects a dead connection, and the backoff of a watch that fails.

mod backoff;
mod client;

pub use backoff::Backoff;
pub use client::{ConnectError, connect};

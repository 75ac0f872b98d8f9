//! TCP as a pod's kernel speaks it: edge cases, large numbers of connections, crashes of the agent and takeovers.

mod crashes;
mod edges;
mod numbers;
mod swaps;

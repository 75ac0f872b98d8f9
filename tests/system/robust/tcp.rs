//! TCP as a pod's kernel speaks it: its edges, its numbers, crashes of the agent and takeovers.

mod crashes;
mod edges;
mod numbers;
mod swaps;

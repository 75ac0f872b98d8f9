//! The real binaries as processes in network namespaces, with the real eBPF programs.
//!
//! Every test builds a node of its own and ends with the invariant: no packet of a pod has reached the fake IMDS.
//! Before that it shows that a pod's request does reach it with nothing of ours in the way. Needs root, the built
//! binaries and the Python environment.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "everything here is a test, fails where something is not as expected, and prints what it measured"
)]

mod closed;
mod identity;
mod lifecycle;
mod operators;
mod robust;
mod support;

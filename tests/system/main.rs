//! The real binaries as processes in network namespaces, with the real eBPF programs.
//!
//! Every test builds a node of its own and ends with the invariant: no packet of a pod is at the stand-in for the real
//! IMDS. Before that it has shown that a pod's request does get there with nothing of ours in the way. Needs root, the
//! built binaries and the Python environment.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "all of this is a test, ends where something is not as expected, and says what it measured"
)]

mod closed;
mod identity;
mod lifecycle;
mod operators;
mod robust;
mod support;

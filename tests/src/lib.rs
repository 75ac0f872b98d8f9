//! The harness of the whole-system tests, of the demo and of the benchmark: everything that a real node has around it, in network
//! namespaces of its own, removed when dropped.
//!
//! In the order in which they build on one another:
//! - [`eventually`]: waiting for something to become true.
//! - [`node`]: the node between the pods and the fake IMDS: namespaces, cgroups, processes, and their removal.
//! - [`fakes`]: the IMDS, which counts every packet that reaches it by sender, and what the binaries talk to.
//! - [`clients`]: what asks from within a pod.
//! - [`system`]: the real binaries on such a node.
//! - [`cluster`]: a real one-node Kubernetes instead.
//! - [`leaks`]: the words for a leak, which the mutations look for.
#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot go on ends; what it has to say goes to its output"
)]

pub mod clients;
pub mod cluster;
pub mod eventually;
pub mod fakes;
pub mod leaks;
pub mod node;
pub mod system;

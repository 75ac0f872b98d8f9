//! The harness of the whole-system tests, the demo and the benchmark: everything around a real node, in network
//! namespaces of its own that are removed when dropped.
//!
//! In the order in which the modules build on one another:
//! - [`eventually`]: waiting with a deadline.
//! - [`node`]: the node between the pods and the fake IMDS: namespaces, cgroups, processes, and their removal.
//! - [`fakes`]: the fake IMDS, which counts every packet by sender, and fakes of the services that the binaries use.
//! - [`clients`]: clients in a pod.
//! - [`system`]: the real binaries on such a node.
//! - [`cluster`]: a real one-node Kubernetes.
//! - [`leaks`]: the texts that report a leak; the mutation tests look for them.
#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot continue ends; its messages go to its output"
)]

pub mod clients;
pub mod cluster;
pub mod eventually;
pub mod fakes;
pub mod leaks;
pub mod node;
pub mod system;

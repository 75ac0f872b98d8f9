//! The harness of the whole-system tests, and of the demo: everything that a real node has around it, in network
//! namespaces of its own, removed when dropped.
//!
//! In the order in which they build on one another:
//! - [`owner`], [`leftovers`]: whose things these are, and what a killed run left behind.
//! - [`process`], [`eventually`]: tools, daemons, and waiting for something to become true.
//! - [`cgroups`]: pods' control groups, as a kubelet makes them.
//! - [`netns`], [`topology`]: namespaces, the node between the pods and the stand-in for the real IMDS.
//! - [`canary`]: that stand-in; it counts every packet that reaches it, by sender.
//! - [`bystander`]: other processes of the node, which must not see one either.
//! - [`kube_api`], [`sts`], [`pki`]: what the binaries talk to.
//! - [`clients`]: what asks from within a pod.
//! - [`system`]: the real binaries.
//! - [`demo`], [`mod@bench`]: all of it, shown to people, and measured.
#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot go on ends; what it has to say goes to its output"
)]

pub mod bench;
pub mod bystander;
pub mod canary;
pub mod cgroups;
pub mod clients;
pub mod cluster;
pub mod demo;
pub mod eventually;
mod http_server;
pub mod kube_api;
pub mod leaks;
pub mod leftovers;
pub mod netns;
pub mod owner;
pub mod pki;
pub mod process;
pub mod sts;
pub mod syscalls;
pub mod system;
pub mod topology;

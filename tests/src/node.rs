//! The node between the pods and the fake IMDS: namespaces, cgroups, processes, and their removal.

pub mod bystander;
pub mod cgroups;
pub mod leftovers;
pub mod netns;
pub mod owner;
pub mod process;
pub mod syscalls;
pub mod topology;

//! The redirect: hands pods' connections to the agent's listening sockets.
//!
//! Reading order: [`listener`] (opens those sockets), [`interfaces`] (attaches the TC program to the interfaces of
//! pods), [`cgroup`] (attaches the hooks for pods that TC does not cover), [`connection_records`] (the kernel's records
//! of the pod behind each connection), [`exempt_map`] (the pods that keep the node role).

pub(crate) mod cgroup;
pub(crate) mod connection_records;
pub(crate) mod exempt_map;
pub(crate) mod interfaces;
pub(crate) mod listener;

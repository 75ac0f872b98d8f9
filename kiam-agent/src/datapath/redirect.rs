//! The redirect: hands pods' connections to the agent's listening sockets.
//!
//! [`listener`] opens those sockets, [`interfaces`] attaches the TC program to the pods' interfaces, [`cgroup`] attaches
//! the hooks for pods that TC does not see, [`connection_records`] holds the records of who opened a connection, and
//! [`exempt_map`] the pods that keep the node role.

pub(crate) mod cgroup;
pub(crate) mod connection_records;
pub(crate) mod exempt_map;
pub(crate) mod interfaces;
pub(crate) mod listener;

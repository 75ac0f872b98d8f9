//! The documents, the status and the admin endpoints, as an operator of a node uses them.

mod admin;
pub(crate) mod migration;
mod pages;
mod sdk;
pub(crate) mod status;

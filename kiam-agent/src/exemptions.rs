//! Which pods keep the node's role where hostNetwork pods have their own: those of this node that run as one of the
//! ServiceAccounts of `--exempt`.
//!
//! The Kubernetes API itself tells it ([`watch`]), so that no kiam server and no metadata service is needed for it, on a
//! node's first boot neither. What it told last is on disk ([`mod@file`]) for a boot without it. What is known ([`known`])
//! goes to the datapath, which knows pods by their cgroups.
//!
//! Of a pod nothing is asked but its metadata, and of that nothing is kept but its UID.

mod file;
mod known;
mod watch;

pub(crate) use file::{read, remove, write};
pub(crate) use known::{Known, Lists};
pub(crate) use watch::follow;

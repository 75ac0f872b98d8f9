//! Exempt pods: the pods of this node that run as one of the ServiceAccounts of `--exempt`. They keep the node role
//! where hostNetwork pods get their own.
//!
//! The list comes from the Kubernetes API ([`watch`]), so it needs neither a kiam server nor IMDS, not even at the
//! first boot of a node. The last list is on disk ([`mod@file`]) for a boot without the API. The current list
//! ([`known`]) goes to the datapath, which identifies pods by their cgroups.
//!
//! Only the metadata of pods is requested, and only UIDs are kept.

mod file;
mod known;
mod watch;

pub(crate) use file::{read, remove, write};
pub(crate) use known::{Known, Lists};
pub(crate) use watch::follow;

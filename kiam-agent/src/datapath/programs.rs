//! The eBPF programs and maps: what is loaded, where it is pinned, and where it is attached.
//!
//! Reading order: [`object`] (the programs and maps of this build), [`pins`] (what outlives the process), [`tc`] (a
//! program on an interface), [`backstop`] (the socket lookup of the node), [`links`] (what both are attached by),
//! [`attached`] (verifies that a program is still on its interface), [`log`] (the programs' log lines), [`memlock`].

pub(crate) mod attached;
pub(crate) mod backstop;
mod links;
pub(crate) mod log;
pub(crate) mod memlock;
pub(crate) mod object;
pub(crate) mod pins;
pub(crate) mod tc;

use aya::maps::MapError;

/// Turns the error that a map has no such key into `None`.
pub(crate) fn optional<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

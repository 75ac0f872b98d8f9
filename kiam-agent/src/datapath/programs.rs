//! The eBPF programs and maps: what is loaded, where it is pinned, and where it is attached.
//!
//! Reading order: [`object`] (the programs and maps of this build), [`pins`] (what outlives the process), [`tc`] (a program
//! on an interface), [`attached`] (whether it is still there, and what runs before it), [`backstop`] (the socket lookup of
//! the node), [`log`] (the programs' log lines), [`memlock`].

pub(crate) mod attached;
pub(crate) mod backstop;
pub(crate) mod log;
pub(crate) mod memlock;
pub(crate) mod object;
pub(crate) mod pins;
pub(crate) mod tc;

use aya::maps::MapError;

/// What is not there is an answer.
pub(crate) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

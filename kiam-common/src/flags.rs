//! From flags as they were typed to what they mean: parsers of single values, and [`Problems`], which gathers all that
//! is wrong so that it is told at once.

mod parse;
mod problems;

pub use parse::{absolute_path, duration, level, listen_address, milliseconds, path, port, switch};
pub use problems::Problems;

/// Status of a process whose command line or configuration is wrong (`EX_USAGE`, sysexits.h).
pub const EXIT_USAGE: u8 = 64;

#[cfg(test)]
mod tests;

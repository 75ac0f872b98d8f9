//! Command lines: parsing in kiam's forms, the flags shared by agent and server, parsers of single values, and
//! [`Problems`], which collects every wrong flag so that all are reported at once.

mod admin;
mod command_line;
mod ignored;
mod log;
mod parse;
mod problems;
mod server_address;
mod tls;

pub use admin::{AdminArgs, AdminConfig};
pub use command_line::{EXIT_USAGE, exit_code, parse};
pub use ignored::{Ignored, IgnoredArgs};
pub use log::{LogArgs, LogConfig};
pub use parse::{absolute_path, duration, level, listen_address, milliseconds, path, port, switch};
pub use problems::Problems;
pub use server_address::{ServerAddress, server_address};
pub use tls::TlsArgs;

#[cfg(test)]
mod tests;

//! AWS: the server's own credentials, and AssumeRole with them.

mod account;
mod connection;
mod sts;

pub(crate) use account::detect_role_base;
pub(crate) use connection::{Aws, AwsSettings};
pub(crate) use sts::Sts;

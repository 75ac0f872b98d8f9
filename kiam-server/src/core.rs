//! The domain: pods, the roles they may have, and credentials. No network, no tasks, no clock: time is an argument.

pub(crate) mod annotations;
pub(crate) mod credentials;
pub(crate) mod ids;
pub(crate) mod lookup;
pub(crate) mod namespace;
pub(crate) mod notice;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod role;
pub(crate) mod session;
pub(crate) mod text;

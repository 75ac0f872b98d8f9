//! The domain: what a pod is to us, which role it may have, and what a credential is. No network, no tasks, no clock:
//! time comes in as a value.

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

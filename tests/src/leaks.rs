//! Texts of failed safety assertions: the exact words that the mutation runner looks for. «No pod is served» is not one
//! of them: a mutant that only breaks the service has not been caught by a safety test.

/// A packet of a pod reached the fake IMDS.
pub const CANARY: &str = "LEAK: packet at the real IMDS";
/// Another process of the node than the agent received data that a pod sent to the IMDS.
pub const BYSTANDER: &str = "LEAK: byte at another process";
/// A pod got the name or the credentials of another pod's role.
pub const OTHER_ROLE: &str = "LEAK: another pod's role";

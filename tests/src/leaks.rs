//! What a failed safety assertion says: the exact words that the mutation runner looks for. "Nobody is served" is not
//! among them: a mutant that only breaks the service has not been caught by a safety test.

/// A packet of a pod reached the stand-in for the real IMDS.
pub const CANARY: &str = "LEAK: packet at the real IMDS";
/// A process of the node that is not the agent got something that a pod sent to M.
pub const BYSTANDER: &str = "LEAK: byte at another process";
/// A pod was told or given the role of another pod.
pub const OTHER_ROLE: &str = "LEAK: another pod's role";

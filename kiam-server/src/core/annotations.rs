//! The annotations, by the names that kiam gave them (kiam v4.2, README).

/// On a pod: the role that it wants, as a name, a path and a name, or an ARN.
pub(crate) const ROLE: &str = "iam.amazonaws.com/role";
/// On a pod: what the session is called in CloudTrail.
pub(crate) const SESSION_NAME: &str = "iam.amazonaws.com/session-name";
/// On a pod: the external id that the role's trust policy asks for.
pub(crate) const EXTERNAL_ID: &str = "iam.amazonaws.com/external-id";
/// On a namespace: the regexp of the role ARNs that its pods may have.
pub(crate) const PERMITTED: &str = "iam.amazonaws.com/permitted";

//! The annotations of kiam (kiam v4.2, README).

/// On a pod: its role, as a name, a path and a name, or an ARN.
pub(crate) const ROLE: &str = "iam.amazonaws.com/role";
/// On a pod: the session name, as shown in CloudTrail.
pub(crate) const SESSION_NAME: &str = "iam.amazonaws.com/session-name";
/// On a pod: the external id that the role's trust policy requires.
pub(crate) const EXTERNAL_ID: &str = "iam.amazonaws.com/external-id";
/// On a namespace: the regexp of the role ARNs permitted to its pods.
pub(crate) const PERMITTED: &str = "iam.amazonaws.com/permitted";

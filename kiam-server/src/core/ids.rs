//! Identifiers, validated on input: parsing is the only way to create one.

use std::fmt;

/// Longest ARN (IAM API reference, `arnType`).
const ARN_LEN_MAX: usize = 2048;
/// Longest role name (IAM API reference, `RoleName`).
const ROLE_NAME_LEN_MAX: usize = 64;
/// Longest path of a role (IAM API reference, `pathType`).
const PATH_LEN_MAX: usize = 512;
/// Bounds of an external id (STS API reference, AssumeRole).
const EXTERNAL_ID_LEN: std::ops::RangeInclusive<usize> = 2..=1224;
/// Digits of an account id.
const ACCOUNT_LEN: usize = 12;

/// The uid of a pod.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct PodUid(Box<str>);

impl PodUid {
    /// Returns `None` for an empty text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The ARN of an IAM role, in any partition: `arn:aws-cn:iam::123456789012:role/path/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RoleArn(Box<str>);

/// Reason why a text is not the ARN of a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RoleArnError {
    #[error("it is longer than {ARN_LEN_MAX} characters")]
    TooLong,
    #[error("it does not have the form arn:PARTITION:iam::ACCOUNT:role/NAME")]
    Form,
    #[error("the partition is not one such as aws, aws-cn or aws-us-gov")]
    Partition,
    #[error("the account is not {ACCOUNT_LEN} digits")]
    Account,
    #[error("the path is longer than {PATH_LEN_MAX} characters")]
    PathTooLong,
    #[error("the role's name is empty or longer than {ROLE_NAME_LEN_MAX} characters")]
    NameLength,
    #[error("a part of the path is empty, . or ..")]
    PathPart,
    #[error("it contains a character other than letters, digits and _+=,.@-/")]
    Character,
}

impl RoleArn {
    pub(crate) fn parse(text: &str) -> Result<Self, RoleArnError> {
        if text.len() > ARN_LEN_MAX {
            return Err(RoleArnError::TooLong);
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else {
            return Err(RoleArnError::Form);
        };
        let name = resource.strip_prefix("role/").ok_or(RoleArnError::Form)?;
        if !is_partition(partition) {
            return Err(RoleArnError::Partition);
        }
        if account.len() != ACCOUNT_LEN || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RoleArnError::Account);
        }
        check_role_path(name)?;
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part after `role/`: path and name.
    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        self.0.splitn(6, ':').nth(5).and_then(|resource| resource.strip_prefix("role/")).unwrap_or_default()
    }
}

impl fmt::Debug for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Accepts `aws`, and `aws-…` in lower case: AWS adds partitions from time to time.
fn is_partition(text: &str) -> bool {
    text == "aws"
        || text.strip_prefix("aws-").is_some_and(|rest| {
            rest.len() <= 16
                && rest.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
        })
}

/// Checks a path and a name, without a leading slash. IAM allows more characters in a path than in a name; only those
/// of a name are accepted here, because a role with others cannot be requested through the IMDS anyway.
fn check_role_path(text: &str) -> Result<(), RoleArnError> {
    let (path, name) = text.rsplit_once('/').unwrap_or(("", text));
    if path.len() + 2 > PATH_LEN_MAX {
        return Err(RoleArnError::PathTooLong);
    }
    if name.is_empty() || name.len() > ROLE_NAME_LEN_MAX {
        return Err(RoleArnError::NameLength);
    }
    if !text.bytes().all(|byte| byte == b'/' || is_name_byte(byte)) {
        return Err(RoleArnError::Character);
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(RoleArnError::PathPart);
    }
    Ok(())
}

/// Returns `true` for a character of a role or session name (IAM and STS API references: `[\w+=,.@-]`).
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte)
}

/// The external id of an AssumeRole call, which a role's trust policy may require.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ExternalId(Box<str>);

/// Reason why a text is not an external id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ExternalIdError {
    #[error("it is not between {} and {} characters long", EXTERNAL_ID_LEN.start(), EXTERNAL_ID_LEN.end())]
    Length,
    #[error("it contains a character other than letters, digits and _+=,.@:/-")]
    Character,
}

impl ExternalId {
    pub(crate) fn parse(text: &str) -> Result<Self, ExternalIdError> {
        if !EXTERNAL_ID_LEN.contains(&text.len()) {
            return Err(ExternalIdError::Length);
        }
        if !text.bytes().all(|byte| is_name_byte(byte) || b":/".contains(&byte)) {
            return Err(ExternalIdError::Character);
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_of_roles_in_every_partition() {
        for (text, name) in [
            ("arn:aws:iam::123456789012:role/myrole", "myrole"),
            ("arn:aws:iam::123456789012:role/path-prefix/another-role", "path-prefix/another-role"),
            ("arn:aws-cn:iam::123456789012:role/a", "a"),
            ("arn:aws-us-gov:iam::123456789012:role/a", "a"),
            ("arn:aws-iso-b:iam::123456789012:role/a", "a"),
            ("arn:aws-eusc:iam::123456789012:role/a", "a"),
            ("arn:aws:iam::123456789012:role/_+=,.@-", "_+=,.@-"),
        ] {
            assert_eq!(RoleArn::parse(text).unwrap().name(), name, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long_name = format!("arn:aws:iam::123456789012:role/{}", "x".repeat(65));
        let long_path = format!("arn:aws:iam::123456789012:role/{}/x", "p/".repeat(300));
        let long = format!("arn:aws:iam::123456789012:role/{}", "x".repeat(100_000));
        for (text, error) in [
            ("", RoleArnError::Form),
            ("myrole", RoleArnError::Form),
            ("arn:", RoleArnError::Form),
            ("arn:aws:iam", RoleArnError::Form),
            ("arn:aws:iam::123456789012:role", RoleArnError::Form),
            ("arn:aws:iam::123456789012:user/x", RoleArnError::Form),
            ("arn:aws:sts::123456789012:role/x", RoleArnError::Form),
            ("arn:aws:iam:eu-west-1:123456789012:role/x", RoleArnError::Form),
            ("arn:amazon:iam::123456789012:role/x", RoleArnError::Partition),
            ("arn:aws-:iam::123456789012:role/x", RoleArnError::Partition),
            ("arn:aws:iam::OTHER:role/x", RoleArnError::Account),
            ("arn:aws:iam::1234567890123:role/x", RoleArnError::Account),
            ("arn:aws:iam::123456789012:role/", RoleArnError::NameLength),
            (&long_name, RoleArnError::NameLength),
            (&long_path, RoleArnError::PathTooLong),
            (&long, RoleArnError::TooLong),
            ("arn:aws:iam::123456789012:role/../admin", RoleArnError::PathPart),
            ("arn:aws:iam::123456789012:role//admin", RoleArnError::PathPart),
            ("arn:aws:iam::123456789012:role/${admin}", RoleArnError::Character),
            ("arn:aws:iam::123456789012:role/a\r\nb", RoleArnError::Character),
            ("arn:aws:iam::123456789012:role/a*", RoleArnError::Character),
            ("arn:aws:iam::123456789012:role/ä", RoleArnError::Character),
        ] {
            assert_eq!(RoleArn::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn external_ids() {
        assert_eq!(ExternalId::parse("123:a/b").unwrap().as_str(), "123:a/b");
        assert_eq!(ExternalId::parse("x"), Err(ExternalIdError::Length));
        assert_eq!(ExternalId::parse(&"x".repeat(1225)), Err(ExternalIdError::Length));
        assert_eq!(ExternalId::parse("a b"), Err(ExternalIdError::Character));
        assert_eq!(ExternalId::parse("a|b"), Err(ExternalIdError::Character));
    }
}

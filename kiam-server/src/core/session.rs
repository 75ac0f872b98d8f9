//! Session names, which appear in CloudTrail and in the ARN of the assumed role.

use super::{ids::is_name_byte, text::short_digest};

/// Longest session name (STS API reference, AssumeRole).
const SESSION_NAME_LEN_MAX: usize = 64;
/// Longest annotated name; anything longer is a mistake.
const ANNOTATION_LEN_MAX: usize = 256;
/// Prefix of every name, as in kiam.
const PREFIX: &str = "kiam-";

/// A session name that STS accepts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SessionName(Box<str>);

/// Reason why a text cannot become a session name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SessionNameError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {ANNOTATION_LEN_MAX} characters")]
    TooLong,
    #[error("it contains a character that is not printable ASCII")]
    Character,
}

impl SessionName {
    /// Prepends `kiam-` and replaces characters that STS does not allow by `-`. A name of more than 64 characters ends
    /// in a digest of the whole name, so that long names stay distinct.
    pub(crate) fn parse(name: &str) -> Result<Self, SessionNameError> {
        if name.is_empty() {
            return Err(SessionNameError::Empty);
        }
        if name.len() > ANNOTATION_LEN_MAX {
            return Err(SessionNameError::TooLong);
        }
        if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(SessionNameError::Character);
        }
        let mut session: String =
            PREFIX.chars().chain(name.chars().map(|c| if is_name_byte(c as u8) { c } else { '-' })).collect();
        if session.len() > SESSION_NAME_LEN_MAX {
            let digest = short_digest(name);
            session.truncate(SESSION_NAME_LEN_MAX - digest.len() - 1);
            session.push('-');
            session.push_str(&digest);
        }
        Ok(Self(session.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_kiam() {
        for (name, session) in [
            ("kiam", "kiam-kiam"),
            ("testing", "kiam-testing"),
            ("testing@#&-test%", "kiam-testing@---test-"),
            ("with space", "kiam-with-space"),
        ] {
            assert_eq!(SessionName::parse(name).unwrap().as_str(), session);
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let long = "Unsplvku4rP9A71Zb5DUQtKviVKSENh0GlKxVRPXGvfDyXXXy8OGqTVfc0UwDlzzYyNkKt";
        assert_eq!(long.len(), 70);
        let session = SessionName::parse(long).unwrap();
        assert_eq!(session.as_str().len(), 64);
        assert!(session.as_str().starts_with("kiam-Unsplvku4rP9A71Zb5DUQtKviVKSENh0GlKxVRPXGvfDyXXXy8"));
        let other = SessionName::parse(&format!("{long}x")).unwrap();
        assert_ne!(session, other);
        let fits = "x".repeat(59);
        assert_eq!(SessionName::parse(&fits).unwrap().as_str(), format!("kiam-{fits}"));
    }

    #[test]
    fn invalid_names_are_refused() {
        assert_eq!(SessionName::parse(""), Err(SessionNameError::Empty));
        assert_eq!(SessionName::parse(&"x".repeat(257)), Err(SessionNameError::TooLong));
        for name in ["a\nb", "ä", "a\0", "\u{7f}"] {
            assert_eq!(SessionName::parse(name), Err(SessionNameError::Character), "{name:?}");
        }
    }
}

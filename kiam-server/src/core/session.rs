//! What a session is called: it shows in CloudTrail, and in the ARN of the assumed role.

use super::{ids::is_name_byte, text::short_digest};

/// Longest name of a session (STS API reference, AssumeRole).
const SESSION_NAME_LEN_MAX: usize = 64;
/// Longest name that an annotation may ask for; what is longer is a mistake, not a name.
const ASKED_LEN_MAX: usize = 256;
/// In front of every name, as in kiam.
const PREFIX: &str = "kiam-";

/// The name of a session, as STS takes it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SessionName(Box<str>);

/// Why a text cannot be made into the name of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SessionNameError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {ASKED_LEN_MAX} characters")]
    TooLong,
    #[error("it holds a character that is not printable ASCII")]
    Character,
}

impl SessionName {
    /// `kiam-` and the name, where a character that STS doesn't know becomes `-`. Two names of more than 64 characters
    /// stay apart: the end gives way to a hash of the whole.
    pub(crate) fn parse(name: &str) -> Result<Self, SessionNameError> {
        if name.is_empty() {
            return Err(SessionNameError::Empty);
        }
        if name.len() > ASKED_LEN_MAX {
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
    fn names_as_kiam_makes_them() {
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
    fn long_names_are_cut_and_stay_apart() {
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
    fn what_is_no_name_is_refused() {
        assert_eq!(SessionName::parse(""), Err(SessionNameError::Empty));
        assert_eq!(SessionName::parse(&"x".repeat(257)), Err(SessionNameError::TooLong));
        for name in ["a\nb", "ä", "a\0", "\u{7f}"] {
            assert_eq!(SessionName::parse(name), Err(SessionNameError::Character), "{name:?}");
        }
    }
}

//! The problems of a configuration, each with the name of its flag.

use std::fmt;

/// Problems of a configuration; not empty when returned as an error.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

/// A problem of one flag.
#[derive(Debug)]
struct Problem {
    /// The flag's name, with dashes.
    flag: &'static str,
    /// The value as typed; `None` if missing.
    value: Option<String>,
    /// Problem and remedy.
    text: String,
}

impl Problems {
    /// Returns the section, or `None` after adding its problems to these.
    pub fn section<T>(&mut self, section: Result<T, Self>) -> Option<T> {
        section.map_err(|Self(problems)| self.0.extend(problems)).ok()
    }

    /// Returns the parsed value of a flag, or `None` after adding the error of `parse`.
    pub fn value<T, E: fmt::Display>(
        &mut self,
        flag: &'static str,
        value: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.add(flag, Some(value), error.to_string());
                None
            }
        }
    }

    /// Does as [`Self::value`] for a flag that may be absent or empty.
    pub fn optional<T, E: fmt::Display>(
        &mut self,
        flag: &'static str,
        value: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match value {
            None | Some("") => Some(None),
            Some(value) => self.value(flag, value, parse).map(Some),
        }
    }

    /// Does as [`Self::value`] for a flag that must be given; `purpose` describes the value.
    pub fn required<T, E: fmt::Display>(
        &mut self,
        flag: &'static str,
        value: Option<&str>,
        purpose: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match value {
            None | Some("") => {
                self.add(flag, None, format!("is required: {purpose}"));
                None
            }
            Some(value) => self.value(flag, value, parse),
        }
    }

    /// Returns `true` if there are no problems.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a problem.
    pub fn add(&mut self, flag: &'static str, value: Option<&str>, text: String) {
        self.0.push(Problem { flag, value: value.map(str::to_owned), text });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { flag, value, text }) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            match value {
                Some(value) => write!(f, "{newline}{flag} {value:?}: {text}")?,
                None => write!(f, "{newline}{flag} {text}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

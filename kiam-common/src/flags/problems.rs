//! All that is wrong with a configuration, each with the name of its flag.

use std::fmt;

/// What is wrong with a configuration: never empty where it is an error.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

/// What is wrong with one flag.
#[derive(Debug)]
struct Problem {
    /// With its dashes.
    flag: &'static str,
    /// As typed; `None` when it is missing.
    value: Option<String>,
    /// What is wrong, and what to do.
    text: String,
}

impl Problems {
    /// The section, or nothing: then its problems are kept here.
    pub fn section<T>(&mut self, section: Result<T, Self>) -> Option<T> {
        section.map_err(|Self(problems)| self.0.extend(problems)).ok()
    }

    /// The flag's value as `parse` sees it, or nothing: then what it said is kept here.
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

    /// As [`Self::value`], for a flag that may be absent or empty.
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

    /// As [`Self::value`], for a flag that must be given; `purpose` says what it is.
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

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps what is wrong with a flag.
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

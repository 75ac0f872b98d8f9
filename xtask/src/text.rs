//! The texts of the repository, read for `tidy` and `words`: files, Rust lines as code and comments, prose without code.

pub(crate) mod comments;
pub(crate) mod files;
pub(crate) mod prose;
pub(crate) mod rust;

use regex::Regex;

/// Compiles a regular expression of the source code.
#[expect(clippy::expect_used, reason = "the patterns are constants, and each has a test")]
pub(crate) fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regular expression")
}

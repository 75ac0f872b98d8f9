//! The shape of documents: short lines, and tables that are whole.

use super::Finding;
use crate::text::{files::File, pattern, prose};
use regex::Regex;
use std::sync::LazyLock;

/// Characters of a line.
const LENGTH_MAX: usize = 120;
/// Addresses cannot be broken into lines.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\]\([^)]*\)|https?://\S+"));

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| file.is_document()).flat_map(check_document).collect()
}

fn check_document(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut in_fence, mut in_table) = (false, false);
    let mut lines = file.text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        in_fence ^= prose::is_fence(line);
        if in_fence {
            continue;
        }
        let is_row = is_row(line);
        if is_row && !in_table && !lines.peek().is_some_and(|(_, next)| is_separator(next)) {
            findings.push(Finding::at(file, index, TABLE.to_owned()));
        }
        in_table = is_row;
        let length = length(line);
        if !is_row && length > LENGTH_MAX {
            findings.push(Finding::at(file, index, format!("{length} characters: break the line after {LENGTH_MAX}")));
        }
    }
    findings
}

const TABLE: &str = "table rows without a header: remove the blank line above them, or give them a header";

fn is_row(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

/// Returns true for the line below a table's header, such as `|---|:-:|`.
fn is_separator(line: &str) -> bool {
    is_row(line) && line.contains('-') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

fn length(line: &str) -> usize {
    ADDRESS.replace_all(line, "").chars().count()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings, check};

    #[test]
    fn long_lines_are_found() {
        let (fits, long) = ("x".repeat(120), "ä".repeat(121));
        assert_eq!(findings(check, "a.md", &fits).len(), 0);
        assert_eq!(findings(check, "a.md", &long), ["1: 121 characters: break the line after 120"]);
        assert_eq!(findings(check, "a.rs", &long).len(), 0, "rustfmt breaks code");
        assert_eq!(findings(check, "a.md", &format!("```\n{long}\n```")).len(), 0, "code");
        assert_eq!(findings(check, "a.md", &format!("| a |\n|---|\n| {long} |")).len(), 0, "a table");
        assert_eq!(findings(check, "a.md", &format!("see [b](https://{long})")).len(), 0, "an address");
        assert_eq!(findings(check, "a.md", &format!("see https://{long}")).len(), 0, "an address");
    }

    #[test]
    fn a_table_that_a_blank_line_cuts_is_found() {
        let cut = "| a |\n|---|\n| b |\n\n| c |\n";
        assert_eq!(findings(check, "a.md", cut).len(), 1);
        assert!(findings(check, "a.md", cut).iter().all(|finding| finding.starts_with("5: ")));
        assert_eq!(findings(check, "a.md", "| a |\n|:--|\n| b |\n| c |\n").len(), 0);
        assert_eq!(findings(check, "a.md", "| a |\n|---|\n\n| b |\n|---|\n").len(), 0);
        assert_eq!(findings(check, "a.md", "```\n| c |\n```").len(), 0, "code");
    }
}

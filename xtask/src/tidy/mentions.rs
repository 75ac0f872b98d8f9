//! Paths between backticks, in comments and documents, exist.

use super::Finding;
use crate::text::{
    files::{self, File},
    pattern,
    rust::Line,
};
use regex::Regex;
use std::{collections::BTreeSet, sync::LazyLock};

static PATH: LazyLock<Regex> = LazyLock::new(|| pattern(r"`(?:\.\./)*([\w.-]+/[\w./-]+|[\w./-]+\.rs)`"));
/// Documents about earlier states of the repository.
const EXEMPT: [&str; 1] = ["CHANGELOG.md"];
/// Names that stand for any file.
const PLACEHOLDERS: [&str; 2] = ["foo.rs", "mod.rs"];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let paths = files::paths(files);
    let files = files.iter().filter(|file| !EXEMPT.contains(&file.path.as_str()));
    files.flat_map(|file| check_file(file, &paths)).collect()
}

fn check_file(file: &File, paths: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, text) in texts(file).enumerate() {
        for path in PATH.captures_iter(text).filter_map(|captures| captures.get(1)) {
            let path = path.as_str().trim_end_matches('/');
            if is_missing(path, paths) && !PLACEHOLDERS.contains(&path) {
                findings.push(Finding::at(file, index, format!("there is no {path}: name the file that is meant")));
            }
        }
    }
    findings
}

/// A path from the root must exist. Of a Rust file, the end of the path is enough.
fn is_missing(path: &str, paths: &BTreeSet<&str>) -> bool {
    let is_from_root = path.split_once('/').is_some_and(|(folder, _)| paths.contains(folder));
    let is_end = |whole: &&str| whole.strip_suffix(path).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    let is_there = || if path.ends_with(".rs") { paths.iter().any(is_end) } else { paths.contains(path) };
    (is_from_root || path.ends_with(".rs")) && !is_there()
}

/// Returns the text of each line that may name a path: of Rust, the comment.
fn texts(file: &File) -> Box<dyn Iterator<Item = &str> + '_> {
    if file.is_rust() { Box::new(file.lines().iter().map(Line::comment_text)) } else { Box::new(file.text.lines()) }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings_in, check};

    fn findings(path: &str, text: &str) -> Vec<String> {
        findings_in(check, &[("src/a/b.rs", ""), (path, text)])
    }

    #[test]
    fn paths_to_nothing_are_found() {
        assert_eq!(findings("a.md", "\nsee `src/a/c.rs`"), ["2: there is no src/a/c.rs: name the file that is meant"]);
        assert_eq!(findings("b.rs", "//! See `src/c`.").len(), 1);
        assert_eq!(findings("c.toml", "# See `src/c/`.").len(), 1);
        assert_eq!(findings("a.md", "`x/b.rs`, `c.rs` and `../c.rs`").len(), 3);
    }

    #[test]
    fn other_paths_are_not() {
        for path in ["src/a/b.rs", "src/a/", "a/b.rs", "b.rs", "../b.rs", "other/c", "src/*/c", "/src/c", "foo.rs"] {
            assert_eq!(findings("a.md", &format!("see `{path}`")).len(), 0, "{path}");
        }
        assert_eq!(findings("b.rs", "let x = \"`src/c`\";").len(), 0, "not a comment");
        assert_eq!(findings("CHANGELOG.md", "see `src/c`").len(), 0, "history");
    }
}

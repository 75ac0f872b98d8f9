//! The prose that people wrote in a file: its comments, or the whole of a document.

use super::{files::File, prose, rust::Line};

/// Endings of the paths of other files, with comments that start with `#`.
const HASH_COMMENTS: [&str; 6] = [".toml", ".yaml", ".sh", ".py", ".service", ".ci/run"];

/// Returns one text for each line of the file, without code; empty where the line has no prose.
pub(crate) fn of(file: &File) -> Vec<String> {
    if file.is_document() {
        prose::without_code(file.text.lines())
    } else if file.is_rust() {
        prose_of(file.lines())
    } else if HASH_COMMENTS.iter().any(|ending| file.path.ends_with(ending)) {
        prose::without_code(file.text.lines().map(after_hash))
    } else {
        Vec::new()
    }
}

/// Returns the prose in the comments of Rust lines, one text for each.
pub(crate) fn prose_of(lines: &[Line]) -> Vec<String> {
    prose::without_code(lines.iter().map(Line::comment_text))
}

/// Returns the comment of a line of TOML, YAML, shell or Python.
fn after_hash(line: &str) -> &str {
    let is_comment = |&(at, _): &(usize, &str)| {
        let before = line.get(..at).unwrap_or_default();
        let is_word_start = before.is_empty() || before.ends_with([' ', '\t']);
        is_word_start && ['"', '\''].iter().all(|quote| before.matches(*quote).count().is_multiple_of(2))
    };
    line.match_indices('#').find(is_comment).and_then(|(at, _)| line.get(at + 1..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(path: &str, text: &str) -> Vec<String> {
        of(&File::new(path, text))
    }

    #[test]
    fn finds_comments_by_the_kind_of_file() {
        assert_eq!(of_file("x.rs", "f(\"# no\"); // Yes `no`.\ng();"), [" Yes ``.", ""]);
        assert_eq!(of_file("x.toml", "a = \"# no\" # Yes.\nb = 1"), [" Yes.", ""]);
        assert_eq!(of_file("x.sh", "${x#no} # Yes."), [" Yes."]);
        assert_eq!(of_file("x.md", "Yes."), ["Yes."]);
        assert!(of_file("x.tsv", "# no").is_empty());
    }
}

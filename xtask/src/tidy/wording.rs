//! Words and openings that the «Style» of CONTRIBUTING.md rules out, in comments and documents.

use super::Finding;
use crate::text::{comments, files::File, pattern, rust};
use regex::Regex;
use std::sync::LazyLock;

/// Patterns, and the advice that goes with each. Code between backticks is not searched.
const WORDS: [(&str, &str); 9] = [
    (r"(?i)\bwhom(ever)?\b", "name the person or the part"),
    (r"(?i)\bwho(so)?ever\b", "name the person or the part"),
    (r"(?i)\bwhose (it is|they are)\b", "write which pod, process or file it belongs to"),
    (r"(?i)\bnobody('s|’s)?\b", "write `no pod`, `no process` or the like"),
    (r"(?i)\bsomebody('s|’s)?\b", "name the person or the part"),
    (r"(?i)\bshall\b", "write `must`, or the present tense"),
    (r"(?i)\bbeside\b", "write `next to`, `with` or `besides`"),
    (r"(?i)\bany more\b", "write `no longer`, or delete it"),
    (r"(?:^|[^\w.'’/-])M(?:$|[^\w'’/-]|['’]s\b)", "write IMDS"),
];
/// Openings of doc comments: neither a verb in the third person nor a noun.
const OPENING: &str = r"^(What|Who|Whom|Whose|How|Whether|Of)\b";
/// Documents with words of their own.
const EXEMPT: [&str; 1] = ["CHANGELOG.md"];

static PATTERNS: LazyLock<Vec<(Regex, &str)>> =
    LazyLock::new(|| WORDS.iter().map(|(word, advice)| (pattern(word), *advice)).collect());
static OPENINGS: LazyLock<Regex> = LazyLock::new(|| pattern(OPENING));

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let files = files.iter().filter(|file| !EXEMPT.contains(&file.path.as_str()));
    files.flat_map(|file| words(file).into_iter().chain(openings(file))).collect()
}

fn words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, prose) in comments::of(file).iter().enumerate() {
        for (word, advice) in PATTERNS.iter() {
            if let Some(word) = word.find(prose) {
                let word = word.as_str().trim_matches(|c: char| !c.is_alphanumeric());
                findings.push(Finding::at(file, index, format!("the word `{word}`: {advice}")));
            }
        }
    }
    findings
}

fn openings(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let firsts = rust::first_lines_of_docs(file.lines());
    let opening = |text: &str| OPENINGS.find(text).map(|word| word.as_str().to_owned());
    let found = firsts.into_iter().filter_map(|(index, text)| Some((index, opening(&text)?)));
    found.map(|(index, word)| Finding::at(file, index, advice(&word))).collect()
}

fn advice(word: &str) -> String {
    format!("a doc comment that opens with `{word}`: begin with a verb in the third person, or with a noun")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings, check};

    #[test]
    fn words_are_found_in_comments_and_documents() {
        let bad = [
            "to whom it is",
            "whoever asks",
            "whose it is",
            "nobody's",
            "Somebody",
            "it shall be",
            "beside it",
            "not any more",
            "a SYN to M.",
            "M:80",
            "M's port",
            "(M)",
        ];
        for text in bad {
            assert_eq!(findings(check, "a.rs", &format!("//! {text}")).len(), 1, "{text}");
            assert_eq!(findings(check, "a.md", text).len(), 1, "{text}");
            assert_eq!(findings(check, "a.yaml", &format!("a: 1  # {text}")).len(), 1, "{text}");
        }
    }

    #[test]
    fn other_words_are_not() {
        for text in ["besides", "anymore", "whose port", "`whoever`", "IMDS", "X.M.", "-M", "I'M", "TCP/M"] {
            assert_eq!(findings(check, "a.rs", &format!("//! {text}")).len(), 0, "{text}");
        }
        assert_eq!(findings(check, "a.rs", "let text = \"whoever\";").len(), 0, "not a comment");
        assert_eq!(findings(check, "a.md", "```\nwhoever\n```").len(), 0, "quoted");
        assert_eq!(findings(check, "CHANGELOG.md", "whoever").len(), 0, "history");
    }

    #[test]
    fn openings_of_doc_comments_are_found() {
        for text in ["/// What it is.", "    /// Whether it is.", "/// Of the pod.", "/// How many."] {
            assert_eq!(findings(check, "a.rs", text).len(), 1, "{text}");
        }
        for text in ["/// Returns it.\n/// What it is.", "//! What it is.", "// What it is.", "/// Whatever."] {
            assert_eq!(findings(check, "a.rs", text).len(), 0, "{text}");
        }
    }
}

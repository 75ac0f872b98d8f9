//! Names of tests are identifiers that fit into a column; the sentence goes into the doc comment.

use super::Finding;
use crate::text::{files::File, pattern, rust::Line};
use regex::Regex;
use std::{collections::BTreeSet, sync::LazyLock};

/// Characters of a name.
const LENGTH_MAX: usize = 50;

/// `#[test]`, `#[tokio::test(…)]`.
static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| pattern(r"#\[(\w+::)*test(\(.*\))?\]"));
static FUNCTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bfn (\w+)"));
static MACRO: LazyLock<Regex> = LazyLock::new(|| pattern(r"^macro_rules! (\w+)"));
static CALL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\w+)! \{"));
/// A test in the call of a macro: `name,` and `name: …`.
static ENTRY: LazyLock<Regex> = LazyLock::new(|| pattern(r"^    (\w+)(?:,|: )"));

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| file.is_rust()).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let names = functions(file.lines()).into_iter().chain(entries(file.lines()));
    let long = names.filter(|(_, name)| name.chars().count() > LENGTH_MAX);
    let advice = |name: &str| {
        let length = name.chars().count();
        format!("the test name {name} has {length} characters: {LENGTH_MAX} at most, the sentence goes into `///`")
    };
    long.map(|(index, name)| Finding::at(file, index, advice(&name))).collect()
}

/// Returns the functions with a test's attribute.
pub(crate) fn functions(lines: &[Line]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_test = false;
    for (index, line) in lines.iter().enumerate() {
        is_test |= ATTRIBUTE.is_match(&line.code);
        if is_test && let Some(name) = capture(&FUNCTION, &line.code) {
            found.push((index, name));
            is_test = false;
        }
    }
    found
}

/// Returns the names in the calls of the file's own macros that make tests.
fn entries(lines: &[Line]) -> Vec<(usize, String)> {
    let makers = makers(lines);
    let mut found = Vec::new();
    let mut in_call = false;
    for (index, line) in lines.iter().enumerate() {
        if let Some(name) = capture(&CALL, &line.code) {
            in_call = makers.contains(&name);
        } else if line.code.starts_with('}') {
            in_call = false;
        }
        if in_call {
            found.extend(capture(&ENTRY, &line.code).map(|name| (index, name)));
        }
    }
    found
}

fn makers(lines: &[Line]) -> BTreeSet<String> {
    let mut makers = BTreeSet::new();
    let mut current = None;
    for line in lines {
        current = match capture(&MACRO, &line.code) {
            Some(name) => Some(name),
            None if line.code.starts_with('}') => None,
            None => current,
        };
        if ATTRIBUTE.is_match(&line.code) {
            makers.extend(current.clone());
        }
    }
    makers
}

fn capture(pattern: &Regex, code: &str) -> Option<String> {
    Some(pattern.captures(code)?.get(1)?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings, check};

    #[test]
    fn long_names_of_tests_are_found() {
        let (fits, long) = ("x".repeat(50), "x".repeat(51));
        for attribute in ["#[test]", "#[tokio::test]", "#[tokio::test(start_paused = true)]"] {
            assert_eq!(findings(check, "a.rs", &format!("{attribute}\nfn {fits}() {{}}")).len(), 0);
            assert_eq!(findings(check, "a.rs", &format!("{attribute}\nasync fn {long}() {{}}")).len(), 1);
        }
        assert_eq!(findings(check, "a.rs", &format!("#[test]\nfn a() {{}}\nfn {long}() {{}}")).len(), 0, "no test");
    }

    #[test]
    fn long_names_in_a_macro_that_makes_tests_are_found() {
        let (fits, long) = ("x".repeat(50), "x".repeat(51));
        let makes = "macro_rules! both {\n    ($($t:ident,)*) => { $(#[test] fn $t() {})* }\n}\n";
        let other = "macro_rules! both {\n    ($($t:ident,)*) => {}\n}\n";
        let call = format!("both! {{\n    {fits},\n    {long},\n    {long}: 5,\n}}\n");
        assert_eq!(findings(check, "a.rs", &format!("{makes}{call}")).len(), 2);
        assert_eq!(findings(check, "a.rs", &format!("{other}{call}")).len(), 0);
    }
}

//! The paths that a Rust file names: in `use` declarations and in its code.

use crate::text::{files::File, pattern};
use regex::Regex;
use std::{collections::BTreeSet, sync::LazyLock};

/// A path, from the crate that it starts in: `crate::imds::token`, `tonic::Status`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    /// Line, counted from 0.
    pub(super) index: usize,
    pub(super) path: String,
}

static USE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\buse\s+([^;]+);"));
static INLINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|[^\w:.'])((?:::)?[a-z_]\w*(?:::\w+)+)"));
static MODULE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:pub(?:\([^)]*\))? )?mod (\w+) \{"));

/// Returns the paths of a file in the order of its lines, with crates of other packages by the names in `externs`.
pub(super) fn of(file: &File, externs: &BTreeSet<String>) -> Vec<Path> {
    let code: Vec<String> = file.lines().iter().map(|line| line.code.clone()).collect();
    let modules = modules(file, &code);
    let text = code.join("\n");
    let mut named: Vec<(usize, String)> = Vec::new();
    for declaration in USE.captures_iter(&text).filter_map(|captures| captures.get(1)) {
        flatten(declaration.as_str(), declaration.start(), "", &mut named);
    }
    let without_uses = USE.replace_all(&text, |captures: &regex::Captures<'_>| blank(captures.get(0)));
    let inline = INLINE.captures_iter(&without_uses).filter_map(|captures| captures.get(1));
    named.extend(inline.map(|path| (path.start(), path.as_str().to_owned())));

    let paths = named.into_iter().map(|(offset, path)| {
        let index = text.get(..offset).unwrap_or_default().matches('\n').count();
        let module = modules.get(index).map_or(&[][..], Vec::as_slice);
        Path { index, path: resolve(&path, module, externs) }
    });
    paths.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Replaces a match by as much space, on as many lines.
fn blank(found: Option<regex::Match<'_>>) -> String {
    let text = found.map_or("", |found| found.as_str());
    text.chars().map(|c| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) }).collect()
}

/// Adds the paths of a `use` tree, each with the offset of its end in the text.
fn flatten(tree: &str, offset: usize, prefix: &str, paths: &mut Vec<(usize, String)>) {
    for (at, part) in parts(tree) {
        let offset = offset + at;
        match part.split_once('{') {
            Some((head, inside)) => {
                let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
                flatten(inside, offset + head.len() + 1, &format!("{prefix}{}", head.trim()), paths);
            }
            None => {
                let name = part.split_whitespace().next().unwrap_or_default();
                let leading = part.len() - part.trim_start().len();
                let path = format!("{prefix}{name}");
                let path = path.strip_suffix("::self").or(path.strip_suffix("::*")).unwrap_or(&path);
                paths.extend((!name.is_empty()).then(|| (offset + leading, path.to_owned())));
            }
        }
    }
}

/// Splits at the commas that are in no braces, and returns each part with its offset.
fn parts(tree: &str) -> Vec<(usize, &str)> {
    let (mut depth, mut start) = (0_usize, 0);
    let mut parts = Vec::new();
    for (at, character) in tree.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.extend(tree.get(start..at).map(|part| (start, part)));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(tree.get(start..).map(|part| (start, part)));
    parts
}

/// Returns the module that each line is in. A module in the file itself begins and ends at the left margin.
fn modules(file: &File, code: &[String]) -> Vec<Vec<String>> {
    let inside = file.path.split_once("/src/").map_or("", |(_, path)| path.trim_end_matches(".rs"));
    let is_root = matches!(inside, "lib" | "main");
    let of_file: Vec<String> = inside.split('/').filter(|_| !is_root).map(str::to_owned).collect();
    let mut current = of_file.clone();
    let mut modules = Vec::new();
    for line in code {
        if let Some(name) = MODULE.captures(line).and_then(|captures| captures.get(1)) {
            current.push(name.as_str().to_owned());
        } else if line.starts_with('}') {
            current.clone_from(&of_file);
        }
        modules.push(current.clone());
    }
    modules
}

fn resolve(path: &str, module: &[String], externs: &BTreeSet<String>) -> String {
    let is_extern = |name: &str| externs.contains(name) || matches!(name, "crate" | "std" | "core" | "alloc");
    let absolute = path.trim_start_matches("::");
    let first = absolute.split("::").next().unwrap_or_default();
    if is_extern(first) || path.starts_with("::") {
        return absolute.to_owned();
    }
    let mut module = module;
    let mut rest: Vec<&str> = absolute.split("::").collect();
    while let Some(step @ ("self" | "super")) = rest.first().copied() {
        if step == "super" {
            module = module.split_last().map_or(&[], |(_, outer)| outer);
        }
        rest.remove(0);
    }
    let steps = ["crate"].into_iter().chain(module.iter().map(String::as_str)).chain(rest);
    steps.collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<(usize, String)> {
        let externs = BTreeSet::from(["tonic".to_owned(), "kiam_common".to_owned()]);
        of(&File::new(path, text), &externs).into_iter().map(|path| (path.index, path.path)).collect()
    }

    #[test]
    fn use_trees_are_taken_apart() {
        let text = "use crate::{\n    a::{self, B},\n    c::*,\n    d as e,\n};\npub(crate) use tonic::Status;\n";
        let expected = [(1, "crate::a"), (1, "crate::a::B"), (2, "crate::c"), (3, "crate::d"), (5, "tonic::Status")];
        assert_eq!(paths("x/src/lib.rs", text), expected.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn relative_paths_are_resolved() {
        let text = "use super::x;\nuse self::y;\nuse z::Z;\nuse super::super::w;\n";
        let expected = ["crate::a::x", "crate::a::b::y", "crate::a::b::z::Z", "crate::w"];
        assert_eq!(paths("k/src/a/b.rs", text).into_iter().map(|(_, path)| path).collect::<Vec<_>>(), expected);
        let tests = "mod tests {\n    use super::x;\n}\nuse super::y;\n";
        assert_eq!(paths("k/src/a.rs", tests), [(1, "crate::a::x".to_owned()), (3, "crate::y".to_owned())]);
    }

    #[test]
    fn paths_in_code_count_and_those_in_comments_do_not() {
        let text = "//! [`tonic::Code`]\nfn f(x: tonic::Status) -> &crate::a::B { \"tonic::c\" }\nx.tonic::<u8>();";
        assert_eq!(paths("k/src/a.rs", text), [(1, "crate::a::B".to_owned()), (1, "tonic::Status".to_owned())]);
    }
}

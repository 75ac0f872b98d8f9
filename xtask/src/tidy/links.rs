//! Links between documents: the file is there, and so is the heading.

use super::Finding;
use crate::text::{
    files::{self, File},
    pattern, prose,
};
use regex::Regex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

/// `[text](target)`, and `[text]: target` at the beginning of a line.
static LINK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s*(\S+)"));

/// The files that links may lead to.
struct Targets<'a> {
    /// Paths of files and folders.
    paths: BTreeSet<&'a str>,
    /// Anchors of the headings of each document.
    anchors: BTreeMap<&'a str, Vec<String>>,
}

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let documents = || files.iter().filter(|file| file.is_document());
    let targets = Targets {
        paths: files::paths(files),
        anchors: documents().map(|file| (file.path.as_str(), anchors(&file.text))).collect(),
    };
    documents().flat_map(|file| check_document(file, &targets)).collect()
}

fn check_document(file: &File, targets: &Targets<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in prose::without_code(file.text.lines()).iter().enumerate() {
        for link in LINK.captures_iter(line) {
            let target = link.get(1).or(link.get(2)).map_or("", |target| target.as_str());
            if let Some(problem) = problem(&file.path, target, targets) {
                findings.push(Finding::at(file, index, format!("the link to {target}: {problem}")));
            }
        }
    }
    findings
}

fn problem(from: &str, target: &str, targets: &Targets<'_>) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let path = if path.is_empty() { from.to_owned() } else { resolve(from, path) };
    if !targets.paths.contains(path.as_str()) {
        return Some(format!("there is no {path}"));
    }
    let (anchor, anchors) = (anchor?, targets.anchors.get(path.as_str())?);
    let is_there = anchors.iter().any(|heading| heading == anchor);
    (!is_there).then(|| format!("{path} has no heading for #{anchor}"))
}

/// Returns the path below the root that a relative one means in a document.
fn resolve(from: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        in_fence ^= prose::is_fence(line);
        let heading = line.trim_start_matches('#');
        if in_fence || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor = anchor(heading.trim());
        let earlier = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(anchor.clone());
        if earlier > 0 {
            anchors.push(format!("{anchor}-{earlier}"));
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings_in, check};

    fn findings(text: &str) -> Vec<String> {
        let other = "# Other\n## How it's `made`: a-b\n```\n# No heading\n```\n## Twice\n## Twice\n";
        findings_in(check, &[("docs/a.md", text), ("docs/b.md", other), ("README.md", "# Readme\n"), ("x/y.rs", "")])
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for target in ["c.md", "../docs", "b.md#made", "b.md#no-heading", "#nothing", "../y.rs", "b.md#twice-2"] {
            let expected = usize::from(target != "../docs");
            assert_eq!(findings(&format!("# A\nsee [it]({target})")).len(), expected, "{target}");
        }
        assert_eq!(findings("[it]: c.md"), ["1: the link to c.md: there is no docs/c.md"]);
        assert_eq!(findings("[it](#b)"), ["1: the link to #b: docs/a.md has no heading for #b"]);
    }

    #[test]
    fn links_that_lead_somewhere_are_not() {
        let targets =
            ["b.md", "b.md#how-its-made-a-b", "#a", "../README.md#readme", "../x/y.rs", "../x", "https://a#b"];
        for target in targets.into_iter().chain(["b.md#twice", "b.md#twice-1"]) {
            assert_eq!(findings(&format!("# A\nsee [it]({target})")).len(), 0, "{target}");
        }
        assert_eq!(findings("`[it](c.md)`").len(), 0, "code");
    }
}

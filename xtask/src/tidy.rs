//! `cargo xtask tidy`: the rules of CONTRIBUTING.md that a program can check.

mod documents;
mod heads;
mod imports;
mod links;
mod manifests;
mod mentions;
mod paths;
mod rules;
mod test_names;
mod wording;

use crate::{
    progress,
    text::files::{self, File},
    workspace,
};
use anyhow::bail;
use std::{fmt, path::PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check another checkout of this repository.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    /// The defect, and the remedy.
    text: String,
}

impl Finding {
    /// Makes a finding for a line, counted from 0.
    fn at(file: &File, index: usize, text: String) -> Self {
        Self { path: file.path.clone(), line: index + 1, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// A check of all files.
type Check = fn(&[File]) -> Vec<Finding>;

const CHECKS: [Check; 8] = [
    imports::check,
    manifests::check,
    heads::check,
    wording::check,
    documents::check,
    links::check,
    mentions::check,
    test_names::check,
];

/// Prints every finding.
///
/// # Errors
/// There are findings.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let files = files::read(args.root.as_deref().unwrap_or(workspace::root()))?;
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&files)).collect();
    findings.sort();
    findings.dedup();
    for finding in &findings {
        progress::say(&finding.to_string());
    }
    if findings.is_empty() { Ok(()) } else { bail!("{} findings", findings.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the findings of a check in one file, as `line: text`.
    pub(super) fn findings(check: Check, path: &str, text: &str) -> Vec<String> {
        findings_in(check, &[(path, text)])
    }

    /// Returns the findings of a check, as `line: text`.
    pub(super) fn findings_in(check: Check, files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|&(path, text)| File::new(path, text)).collect();
        check(&files).iter().map(|finding| format!("{}: {}", finding.line, finding.text)).collect()
    }

    #[test]
    fn a_finding_names_its_file_and_line() {
        let file = File::new("a/b.rs", "");
        assert_eq!(Finding::at(&file, 2, "wrong".to_owned()).to_string(), "a/b.rs:3: wrong");
    }
}

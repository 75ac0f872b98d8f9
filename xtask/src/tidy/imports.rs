//! Imports keep to the directions of [`rules::RULES`].

use super::{
    Finding, paths,
    rules::{self, Rule},
};
use crate::text::files::File;
use std::collections::BTreeSet;

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    check_rules(files, &rules::RULES)
}

fn check_rules(files: &[File], rules: &[Rule]) -> Vec<Finding> {
    let externs = externs(files);
    rules.iter().flat_map(|rule| check_rule(rule, files, &externs)).collect()
}

fn check_rule(rule: &Rule, files: &[File], externs: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = stale(rule, files, externs);
    for file in files.iter().filter(|file| file.is_rust() && is_in(&file.path, rule.room)) {
        for path in paths::of(file, externs).iter().filter(|path| is_refused(rule, &path.path)) {
            let text =
                format!("{} must not use {}: pass it in, or move it (xtask/src/tidy/rules.rs)", rule.room, path.path);
            findings.push(Finding::at(file, path.index, text));
        }
    }
    findings
}

fn is_refused(rule: &Rule, path: &str) -> bool {
    let covers = |entry: &&str| {
        **entry == *"*" || path.strip_prefix(*entry).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    rule.never.iter().any(covers) && !rule.except.iter().any(covers)
}

fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Returns a finding for each name of a rule that nothing has: the rule would check nothing.
fn stale(rule: &Rule, files: &[File], externs: &BTreeSet<String>) -> Vec<Finding> {
    let krate = rule.room.split_once("/src").map_or("", |(krate, _)| krate);
    let has_room = |room: &str| files.iter().any(|file| is_in(&file.path, room));
    let is_known = |entry: &str| match entry.split_once("::") {
        Some(("crate", room)) => has_room(&format!("{krate}/src/{room}")),
        Some((name, module)) if name.starts_with("kiam_") => {
            let module = module.split("::").next().unwrap_or_default();
            has_room(&format!("{}/src/{module}", name.replace('_', "-")))
        }
        _ => {
            let name = entry.split("::").next().unwrap_or_default();
            matches!(name, "*" | "crate" | "core" | "std") || externs.contains(name)
        }
    };
    let entries = rule.never.iter().chain(rule.except).filter(|entry| !is_known(entry));
    let names = entries.map(|entry| (*entry).to_owned());
    let names = names.chain((!has_room(rule.room)).then(|| rule.room.to_owned()));
    let text =
        |name: String| format!("the rule for {} names {name}, which does not exist: correct the rule", rule.room);
    names.map(|name| Finding { path: "xtask/src/tidy/rules.rs".to_owned(), line: 1, text: text(name) }).collect()
}

/// Returns the crates that the workspace depends on, and its own, by their names in code.
fn externs(files: &[File]) -> BTreeSet<String> {
    let manifest = files.iter().find(|file| file.path == "Cargo.toml").map_or("", |file| file.text.as_str());
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let dependencies = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let names = dependencies.and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { room: "k/src/core", never: &["crate", "tonic"], except: &["crate::core"] };

    fn findings(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
        let manifest = ("Cargo.toml", "[workspace.dependencies]\ntonic = \"1\"\nkiam-common = \"1\"\n");
        let others = [manifest, ("kiam-common/src/abi.rs", ""), ("kiam-common/src/secret.rs", "")];
        let files = others.iter().chain(files).map(|&(path, text)| File::new(path, text));
        let found = check_rules(&files.collect::<Vec<_>>(), &[rule]);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn imports_against_the_direction_are_found() {
        for text in ["use crate::grpc::X;", "use tonic::Status;", "use super::grpc;", "fn f(x: tonic::Status) {}"] {
            assert_eq!(findings(RULE, &[("k/src/core.rs", text)]).len(), 1, "{text}");
        }
        let below = findings(RULE, &[("k/src/core.rs", ""), ("k/src/core/a.rs", "\nuse crate::{core::x, grpc::X};")]);
        assert_eq!(below.len(), 1);
        assert!(
            below
                .iter()
                .all(|finding| finding.starts_with("k/src/core/a.rs:2: k/src/core must not use crate::grpc::X"))
        );
    }

    #[test]
    fn imports_in_the_direction_are_not() {
        for text in ["use crate::core::x;", "use std::fs;", "use super::Y;", "use kiam_common::secret;"] {
            let path = if text.contains("super") { "k/src/core/a.rs" } else { "k/src/core.rs" };
            assert_eq!(findings(RULE, &[("k/src/core.rs", ""), (path, text)]).len(), 0, "{text}");
        }
        assert_eq!(findings(RULE, &[("k/src/core.rs", ""), ("k/src/corex.rs", "use tonic::x;")]).len(), 0);
    }

    #[test]
    fn everything_but_the_exceptions_can_be_refused() {
        let rule = || Rule { room: "k/src/core", never: &["*"], except: &["crate::core", "kiam_common::abi"] };
        assert_eq!(findings(rule(), &[("k/src/core.rs", "use std::fs;")]).len(), 1);
        assert_eq!(findings(rule(), &[("k/src/core.rs", "use kiam_common::tls;")]).len(), 1);
        assert_eq!(findings(rule(), &[("k/src/core.rs", "use kiam_common::abi::X;")]).len(), 0);
    }

    #[test]
    fn a_rule_about_nothing_is_found() {
        let gone = Rule { room: "k/src/gone", never: &["crate"], except: &[] };
        assert_eq!(findings(gone, &[("k/src/core.rs", "")]).len(), 1, "no such room");
        let gone = Rule { room: "k/src/core", never: &["tonik"], except: &[] };
        assert_eq!(findings(gone, &[("k/src/core.rs", "")]).len(), 1, "no such crate");
        let gone = Rule { room: "k/src/core", never: &["crate::gone"], except: &[] };
        assert_eq!(findings(gone, &[("k/src/core.rs", "")]).len(), 1, "no such room of the crate");
        let gone = Rule { room: "k/src/core", never: &["kiam_k::gone"], except: &["kiam_k::there"] };
        let files = [("k/src/core.rs", ""), ("kiam-k/src/there.rs", "")];
        assert_eq!(findings(gone, &files).len(), 1, "no such module of another crate");
    }
}

//! Packages of this repository depend on each other as [`rules::PACKAGES`] has it.

use super::{Finding, rules};
use crate::text::files::File;
use toml::{Table, Value};

/// Tables that hold dependencies, at the top and below `target`.
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let own = own_packages(files);
    let manifests = files.iter().filter_map(|file| Some((file, file.path.strip_suffix("/Cargo.toml")?)));
    manifests.flat_map(|(file, folder)| check_manifest(file, folder, &own)).collect()
}

/// Returns the names of the packages that are in this repository.
fn own_packages(files: &[File]) -> Vec<String> {
    let manifests = files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    let name = |file: &File| Some(parse(file).get("package")?.get("name")?.as_str()?.to_owned());
    manifests.filter_map(name).collect()
}

fn check_manifest(file: &File, folder: &str, own: &[String]) -> Vec<Finding> {
    let Some((_, allowed)) = rules::PACKAGES.iter().find(|(package, _)| *package == folder) else {
        let text = "a package without a rule: add it to PACKAGES in xtask/src/tidy/rules.rs".to_owned();
        return vec![Finding::at(file, 0, text)];
    };
    let dependencies = dependencies(&parse(file));
    let refused = dependencies
        .into_iter()
        .filter(|name| name != folder && own.contains(name) && !allowed.contains(&name.as_str()));
    refused.map(|name| Finding::at(file, line_of(file, &name), format!("{folder} must not depend on {name}"))).collect()
}

fn parse(file: &File) -> Table {
    file.text.parse().unwrap_or_default()
}

fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = [manifest].into_iter().chain(targets.filter_map(Value::as_table));
    let kinds = tables.flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    kinds.flat_map(Table::keys).cloned().collect()
}

fn line_of(file: &File, name: &str) -> usize {
    file.text.lines().position(|line| line.starts_with(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings_in, check};

    fn findings(agent: &str) -> Vec<String> {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let (agent, server) = (manifest("kiam-agent", agent), manifest("kiam-server", ""));
        let common = manifest("kiam-common", "");
        findings_in(
            check,
            &[
                ("kiam-agent/Cargo.toml", &agent),
                ("kiam-server/Cargo.toml", &server),
                ("kiam-common/Cargo.toml", &common),
            ],
        )
    }

    #[test]
    fn dependencies_against_the_direction_are_found() {
        for table in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
            let found = findings(&format!("[{table}]\nkiam-common = \"1\"\nkiam-server = \"1\"\n"));
            assert_eq!(found, ["5: kiam-agent must not depend on kiam-server"], "{table}");
        }
    }

    #[test]
    fn dependencies_in_the_direction_are_not() {
        assert_eq!(findings("[dependencies]\nkiam-common = \"1\"\ntokio = \"1\"\n").len(), 0);
    }

    #[test]
    fn a_package_without_a_rule_is_found() {
        assert_eq!(findings_in(check, &[("new/Cargo.toml", "[package]\nname = \"new\"\n")]).len(), 1);
    }
}

//! Flags of kiam: each has a row in the page, and has the effect that the row states.

use super::table;
use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{clients::Environment, node::process, system::Binaries};
use std::{path::PathBuf, process::Command};

const PAGE: &str = "docs/migration.md";
/// One table for each of kiam's commands: flag, kiam's default, ours, effect.
const TABLES: [(&str, &str); 3] = [("agent", "### Agent"), ("server", "### Server"), ("health", "### Health")];
/// Exit code of a wrong command line.
const USAGE: i32 = 64;

/// A flag of kiam.
struct Flag<'a> {
    command: &'a str,
    name: &'a str,
    default: &'a str,
    /// A value other than the default.
    value: &'a str,
}

fn read() -> Result<Vec<Flag<'static>>> {
    let lines = include_str!("kiam-flags.tsv").lines().filter(|line| !line.starts_with('#'));
    let read = |line: &'static str| match line.split('\t').collect::<Vec<_>>()[..] {
        [command, name, default, value] => Ok(Flag { command, name, default, value }),
        _ => bail!("kiam-flags.tsv: «{line}» must have four columns"),
    };
    lines.map(read).collect()
}

/// Every flag of kiam has a row in the table, and the agent or server does what the row says.
#[test]
fn every_kiam_flag_has_a_row_that_holds() {
    let (page, flags, binaries) = (table::page(PAGE).unwrap(), read().unwrap(), Binaries::find().unwrap());
    let mut problems = Vec::new();
    for (command, heading) in TABLES {
        let mut rows = table::rows(&page, heading).unwrap();
        for flag in flags.iter().filter(|flag| flag.command == command) {
            match rows.iter().position(|row| row[0] == flag.name) {
                Some(index) => problems.extend(check(&binaries, flag, &rows.remove(index)).err()),
                None => problems.push(anyhow::anyhow!("{heading}: no row for {}", flag.name)),
            }
        }
        problems.extend(rows.iter().map(|row| anyhow::anyhow!("{heading}: kiam has no flag {}", row[0])));
    }
    let problems: Vec<String> = problems.iter().map(|problem| format!("{problem:#}")).collect();
    assert!(problems.is_empty(), "{PAGE}:\n{}", problems.join("\n"));
}

fn check(binaries: &Binaries, flag: &Flag<'_>, row: &[String]) -> Result<()> {
    let Flag { command, name, default, value } = flag;
    let [_, kiam, ours, what] = row else { bail!("{command} {name}: a row has four cells: {row:?}") };
    ensure!(kiam == default, "{command} {name}: kiam's default is {default}, the row states {kiam}");
    let complaint = complaint(binaries, command, name, value)?;
    if what.starts_with("refused") {
        ensure!(complaint.is_some(), "{command} {name}={value} is accepted, but the row states {what}");
    } else {
        ensure!(
            what.starts_with("same") || what.starts_with("no effect"),
            "{command} {name}: the row states no effect"
        );
        ensure!(complaint.is_none(), "{command} {name}={value} is not accepted: {complaint:?}");
    }
    match default_in_help(binaries, command, name)? {
        Some(found) => ensure!(found == *ours, "{command} {name}: the default is {found}, the row states {ours}"),
        None => ensure!(ours == "-", "{command} {name}: --help shows no default, the row states {ours}"),
    }
    Ok(())
}

/// Returns the message about a flag, given without the required flags. The binaries open nothing before all flags are
/// valid.
fn complaint(binaries: &Binaries, command: &str, name: &str, value: &str) -> Result<Option<String>> {
    let mut process = binary(binaries, command);
    let output = process::output(process.arg(format!("{name}={value}")))?;
    let errors = String::from_utf8(output.stderr)?;
    let code = output.status.code();
    ensure!(code == Some(USAGE), "{command} {name}={value}: exit code {code:?}, not {USAGE}: {errors}");
    // The flag by its name, or its meaning and its value.
    let patterns = [format!(": {name} "), format!(" {value:?}: "), format!("unexpected argument '{name}'")];
    Ok(errors.lines().find(|line| patterns.iter().any(|pattern| line.contains(pattern))).map(str::to_owned))
}

/// Returns the default in `--help`.
fn default_in_help(binaries: &Binaries, command: &str, name: &str) -> Result<Option<String>> {
    let help = process::run(binary(binaries, command).arg("--help"))?;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_flag =
        |line: &str| line.split([' ', '[', '=']).any(|word| word == name) && line.trim_start().starts_with('-');
    let mut lines = help.lines().skip_while(|line| !is_flag(line));
    let Some(first) = lines.next() else { return Ok(None) };
    let own = lines.take_while(|line| line.trim().is_empty() || indent(line) > indent(first));
    let text: Vec<&str> = [first].into_iter().chain(own).flat_map(str::split_whitespace).collect();
    let text = text.join(" ");
    let Some((_, rest)) = text.split_once("[default: ") else { return Ok(None) };
    rest.split_once(']').map(|(default, _)| Some(default.to_owned())).context("the end of the default")
}

/// Returns our counterpart of a kiam command.
fn binary(binaries: &Binaries, command: &str) -> Command {
    let (binary, subcommand): (PathBuf, Option<&str>) = match command {
        "agent" => (binaries.agent(), None),
        "server" => (binaries.server(), None),
        _ => (binaries.server(), Some("health")),
    };
    let mut process = Command::new(binary);
    Environment { variables: Vec::new() }.apply(&mut process);
    process.args(subcommand);
    process
}

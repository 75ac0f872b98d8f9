//! The tables of the status.

use super::problems::{Problem, Severity};
use crate::report::{Attached, Choice, ExemptReport, FenceReport, InterfaceReport, PacketCount, ProgramReport, Status};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use std::{collections::BTreeMap, path::PathBuf};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// Returns the table as text, or `none` if it is empty.
fn or_none(table: &Table) -> String {
    if table.is_empty() { "none".to_owned() } else { table.to_string() }
}

pub(super) fn choices(choices: &[Choice]) -> String {
    let mut table = table(&["", "configured", "in use", "why"]);
    for Choice { what, given, in_use, why } in choices {
        table.add_row([what, given.as_deref().unwrap_or_default(), in_use, why]);
    }
    or_none(&table)
}

pub(super) fn interfaces(interfaces: &[InterfaceReport]) -> String {
    let mut table = table(&["interface", "index", "role", "programs"]);
    for InterfaceReport { index, name, kind, roles, bridge, programs, problem } in interfaces {
        let of = bridge.as_ref().map(|bridge| format!(" of {bridge}")).unwrap_or_default();
        let programs = match problem {
            Some(problem) => Cell::new(format!("none: {problem}")).fg(Color::Red),
            None if programs.is_empty() => Cell::new("none").fg(Color::Red),
            None => Cell::new(programs.join("\n")),
        };
        let role = format!("{}{of} ({kind})", roles.join(", "));
        table.add_row([Cell::new(name), Cell::new(index), Cell::new(role), programs]);
    }
    or_none(&table)
}

/// Returns the sum for each reason, with the interfaces, largest first.
pub(super) fn packets(packets: &[PacketCount]) -> String {
    let mut reasons: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for PacketCount { interface, reason, packets } in packets {
        reasons.entry(reason).or_default().push((*packets, interface));
    }
    let mut table = table(&["reason", "packets", "by interface"]);
    for (reason, mut of) in reasons {
        of.sort_unstable_by(|one, other| other.cmp(one));
        let sum: u64 = of.iter().map(|(packets, _)| packets).sum();
        let name = |interface: &str| if interface.is_empty() { "none" } else { interface }.to_owned();
        let by: Vec<String> = of.iter().map(|(packets, interface)| format!("{} {packets}", name(interface))).collect();
        table.add_row([reason.to_owned(), sum.to_string(), by.join(", ")]);
    }
    or_none(&table)
}

/// Returns repairs, last probes and starts of the worker, in one line.
pub(super) fn upkeep(status: &Status) -> String {
    let repairs: Vec<String> =
        status.repairs.iter().filter(|(_, times)| **times > 0).map(|(what, times)| format!("{what} {times}")).collect();
    let repairs = if repairs.is_empty() { "nothing".to_owned() } else { repairs.join(", ") };
    let probes: Vec<String> = status
        .probes
        .iter()
        .map(|probe| format!("{} {}", probe.family, if probe.answered { "answered" } else { "lost" }))
        .collect();
    let probes = if probes.is_empty() { "none".to_owned() } else { probes.join(", ") };
    format!(
        "repaired: {repairs}; last probes: {probes}; worker starts: {}; answers without a worker: {}",
        status.worker_starts, status.fallback_answers
    )
}

/// Returns the attached programs, then those that the agent runs itself.
pub(super) fn programs<'a>(attached: &[Attached], loaded: impl Iterator<Item = &'a ProgramReport>) -> String {
    let mut table = table(&["program", "id", "attached to", "by"]);
    for place in attached {
        let Attached { program, id, hook, interface, .. } = place;
        let at = interface.as_ref().map_or_else(|| hook.clone(), |interface| format!("{interface} {hook}"));
        table.add_row([program.clone(), id.to_string(), at, held_by(place)]);
    }
    for ProgramReport { name, id } in loaded.filter(|loaded| !attached.iter().any(|place| place.id == loaded.id)) {
        table.add_row([name, id.to_string().as_str(), "not attached", "held by the agent"]);
    }
    or_none(&table)
}

fn held_by(place: &Attached) -> String {
    match (place.link, place.preference, place.handle) {
        (Some(link), _, _) => format!("link {link}"),
        (None, Some(preference), Some(handle)) => format!("filter pref {preference} handle {handle:#x}"),
        _ => String::new(),
    }
}

pub(super) fn fence(fence: &[FenceReport]) -> String {
    let mut table = table(&["", "rules", "packets to the metadata service"]);
    for family in fence {
        let FenceReport { family: name, rules, at_boot, verdict, ahead } = family;
        let mut text: Vec<String> = rules.iter().map(|preference| rule(*preference, at_boot)).collect();
        text.extend(ahead.iter().map(|rule| format!("rule of another program before the fence: {rule}")));
        let text = if text.is_empty() { "none".to_owned() } else { text.join("\n") };
        let verdict = verdict.as_deref().unwrap_or("no route");
        let colour = if family.stands() && ahead.is_empty() { Color::Reset } else { Color::Red };
        table.add_row([Cell::new(name), Cell::new(text).fg(colour), Cell::new(verdict).fg(colour)]);
    }
    or_none(&table)
}

fn rule(preference: u32, at_boot: &[u32]) -> String {
    let boot = if at_boot.contains(&preference) { " (set at boot)" } else { "" };
    format!("pref {preference}{boot}")
}

/// Returns the pins by folder.
pub(super) fn pins(pins: &[PathBuf]) -> String {
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pin in pins {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let folder = part(pin.parent().map(std::path::Path::as_os_str));
        folders.entry(folder).or_default().push(part(pin.file_name()));
    }
    let mut table = table(&["folder", "pins"]);
    for (folder, names) in folders {
        table.add_row([folder, names.join("\n")]);
    }
    or_none(&table)
}

pub(super) fn exempt(pods: &[ExemptReport]) -> String {
    let mut table = table(&["pod", "cgroup", "why"]);
    for ExemptReport { cgroup, pod, why } in pods {
        table.add_row([pod.as_deref().unwrap_or("gone"), &cgroup.to_string(), why]);
    }
    or_none(&table)
}

pub(super) fn problems(problems: &[Problem]) -> String {
    let mut table = table(&["about", "problem and what to do"]);
    for Problem { severity, about, text } in problems {
        let about = match severity {
            Severity::Problem => Cell::new(about).fg(Color::Red),
            Severity::Notice => Cell::new(format!("{about} (notice)")),
        };
        table.add_row([about, Cell::new(text)]);
    }
    or_none(&table)
}

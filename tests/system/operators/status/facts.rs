//! Agreement of the status with `bpftool`, `ip`, `tc` and the folder of the pins.

use anyhow::{Context as _, Result, ensure};
use kiam_common::abi::Reason;
use kiam_tests::{node::process, system::System};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Expected properties of an interface.
pub(super) struct Side<'a> {
    pub(super) roles: &'a [&'a str],
    pub(super) kind: &'a str,
    pub(super) programs: &'a [&'a str],
}

fn bpftool(words: &[&str]) -> Result<Value> {
    let text = process::run(Command::new("bpftool").arg("-j").args(words))?;
    serde_json::from_str(&text).with_context(|| format!("bpftool {words:?}: {text}"))
}

fn list<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>> {
    value.pointer(path).and_then(Value::as_array).with_context(|| format!("no {path} in {value:#}"))
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Asserts that the name of a program is the kernel's.
fn expect_name(id: &Value, name: &Value) -> Result<()> {
    let program = bpftool(&["prog", "show", "id", &id.to_string()])?;
    ensure!(program["name"] == *name, "reported {name} {id}, but bpftool shows {program}");
    Ok(())
}

/// Asserts that each pinned link is reported with the ids that `bpftool` shows, and that there is at least one of each
/// hook except those in `without`.
pub(super) fn expect_links(system: &System, report: &Value, without: &[&str]) -> Result<()> {
    let mut hooks = BTreeSet::new();
    let mut pins = BTreeSet::new();
    for place in list(report, "/kernel/attached")?.iter().filter(|place| !place["pin"].is_null()) {
        let pin = place["pin"].as_str().context("a pin")?;
        let link = bpftool(&["link", "show", "pinned", pin])?;
        ensure!(link["id"] == place["link"] && link["prog_id"] == place["id"], "{place}, but bpftool shows {link}");
        expect_name(&place["id"], &place["program"])?;
        hooks.insert(place["hook"].as_str().unwrap_or_default());
        pins.insert(pin.to_owned());
    }
    let all = BTreeSet::from(["tcx/ingress", "tcx/egress", "netns/sk_lookup", "cgroup"]);
    ensure!(hooks == all.into_iter().filter(|hook| !without.contains(hook)).collect(), "{hooks:?}");
    let present = pinned(system)?.into_iter().filter(|pin| pin.contains("/link_")).collect::<BTreeSet<_>>();
    ensure!(pins == present, "reported {pins:?}, but there are {present:?}");
    Ok(())
}

/// Asserts the number of programs that the agent has loaded, and their names.
pub(super) fn expect_programs(report: &Value, count: usize) -> Result<()> {
    let programs = list(report, "/agent/datapath/programs")?;
    ensure!(programs.len() == count, "{programs:#?}");
    programs.iter().try_for_each(|program| expect_name(&program["id"], &program["name"]))
}

fn pinned(system: &System) -> Result<BTreeSet<String>> {
    let found = process::run(Command::new("find").arg(system.bpffs().join("kiam")).args(["-type", "f"]))?;
    Ok(found.lines().map(str::to_owned).collect())
}

pub(super) fn expect_pins(system: &System, report: &Value) -> Result<()> {
    let pins: BTreeSet<String> = strings(&report["kernel"]["pins"]).into_iter().map(str::to_owned).collect();
    let present = pinned(system)?;
    ensure!(pins == present && pins.len() > 12, "reported {pins:?}, but there are {present:?}");
    Ok(())
}

/// Asserts that `ip` shows the same rules and routes.
pub(super) fn expect_fence(system: &System, report: &Value) -> Result<()> {
    for (family, flag) in [("IPv4", "-4"), ("IPv6", "-6")] {
        let ip = |what: &str| -> Result<Value> {
            Ok(serde_json::from_str(&system.topology.node.ip(&format!("-j {flag} {what}"))?)?)
        };
        let fence = list(report, "/kernel/fence")?.iter().find(|fence| fence["family"] == family).context("a fence")?;
        let rules = ip("rule show")?;
        let preferences = rules.as_array().into_iter().flatten().filter_map(|rule| rule["priority"].as_u64());
        let ours: Vec<Value> = preferences.filter(|preference| (5..=7).contains(preference)).map(Value::from).collect();
        ensure!(fence["rules"] == Value::from(ours), "{fence}, but ip shows {rules}");
        let routes = ip("route show table 4242")?;
        ensure!(
            routes[0]["type"] == fence["verdict"] && fence["verdict"].is_string(),
            "{fence}, but ip shows {routes}"
        );
    }
    Ok(())
}

pub(super) fn expect_owner(system: &System, report: &Value) -> Result<()> {
    let generation = crate::support::generation(system)?;
    let (kernel, agent) = (&report["kernel"]["owner"], &report["agent"]["datapath"]["generation"]);
    ensure!(kernel["generation"] == generation && *agent == generation, "{generation}: {kernel}, {agent}");
    ensure!(kernel["run_dir"].as_str() == system.folder().join("run").to_str(), "{kernel}");
    Ok(())
}

pub(super) fn expect_interface(system: &System, report: &Value, name: &str, side: &Side<'_>) -> Result<()> {
    let interfaces = list(report, "/agent/datapath/interfaces")?;
    let interface = interfaces.iter().find(|interface| interface["name"] == name).context("an interface")?;
    let link: Value = serde_json::from_str(&system.topology.node.ip(&format!("-j link show dev {name}"))?)?;
    ensure!(interface["index"] == link[0]["ifindex"], "{interface}, but ip shows {link}");
    ensure!(strings(&interface["roles"]) == side.roles && interface["kind"] == side.kind, "{interface}");
    ensure!(strings(&interface["programs"]) == side.programs && interface["problem"].is_null(), "{interface}");
    Ok(())
}

pub(super) fn expect_choice(report: &Value, what: &str, given: &str, in_use: &str) -> Result<()> {
    let choices = list(report, "/agent/datapath/choices")?;
    let choice = choices.iter().find(|choice| choice["what"] == what).context("a choice")?;
    ensure!(choice["given"] == given && choice["in_use"] == in_use, "{choice}");
    ensure!(choice["why"].as_str().is_some_and(|why| !why.is_empty()), "{choice}");
    Ok(())
}

/// Asserts that the counters of an interface are those in the map.
pub(super) fn expect_packets(system: &System, report: &Value, interface: &str) -> Result<()> {
    let link: Value = serde_json::from_str(&system.topology.node.ip(&format!("-j link show dev {interface}"))?)?;
    let map = system.bpffs().join("kiam/v1/kiam_interfaces");
    let entries = bpftool(&["map", "dump", "pinned", map.to_str().context("a path")?])?;
    let entry = entries.as_array().into_iter().flatten().find(|entry| entry["formatted"]["key"] == link[0]["ifindex"]);
    let mut in_map: BTreeMap<&str, u64> = BTreeMap::new();
    for cpu in list(entry.context("the interface's entry")?, "/formatted/values")? {
        for (reason, packets) in Reason::ALL.into_iter().zip(list(cpu, "/value/packets")?) {
            *in_map.entry(reason.name()).or_default() += packets.as_u64().context("a number")?;
        }
    }
    in_map.retain(|_, packets| *packets > 0);
    let packets = list(report, "/agent/packets")?.iter().filter(|row| row["interface"] == interface);
    let reported: BTreeMap<&str, u64> =
        packets.filter_map(|row| Some((row["reason"].as_str()?, row["packets"].as_u64()?))).collect();
    ensure!(reported == in_map && reported.len() > 2, "reported {reported:?}, but the map contains {in_map:?}");
    Ok(())
}

/// Asserts that `tc` shows the same filters, on these interfaces and no others.
pub(super) fn expect_filters(system: &System, report: &Value, places: &[(&str, &str)]) -> Result<()> {
    let reported: Vec<&Value> =
        list(report, "/kernel/attached")?.iter().filter(|place| !place["handle"].is_null()).collect();
    for (interface, direction) in places {
        let mut tc = system.topology.node.command("tc");
        let text = process::run(tc.args(["-j", "filter", "show", "dev", interface, direction]))?;
        let shown: Value = serde_json::from_str(&text)?;
        let filter = shown.as_array().into_iter().flatten().find(|filter| !filter["options"]["handle"].is_null());
        let filter = filter.with_context(|| format!("no filter in {text}"))?;
        let hook = format!("clsact/{direction}");
        let ours = reported.iter().find(|place| place["interface"] == *interface && place["hook"] == hook.as_str());
        let ours = ours.with_context(|| format!("{hook} of {interface} is not reported"))?;
        let handle = filter["options"]["handle"].as_str().unwrap_or_default().trim_start_matches("0x");
        ensure!(ours["handle"].as_u64() == u64::from_str_radix(handle, 16).ok(), "{ours}, but tc shows {filter}");
        ensure!(ours["preference"] == filter["pref"], "{ours}, but tc shows {filter}");
        ensure!(ours["id"] == filter["options"]["prog"]["id"], "{ours}, but tc shows {filter}");
        expect_name(&ours["id"], &ours["program"])?;
    }
    let others = reported.iter().filter(|place| !places.iter().any(|(interface, _)| place["interface"] == *interface));
    let others: Vec<&&Value> = others.filter(|place| place["interface"] != "kiam-probe0").collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

/// Asserts that a row of a table contains all of these, in this order.
pub(super) fn expect_row(text: &str, cells: &[&str]) -> Result<()> {
    let has =
        |line: &&str| cells.iter().try_fold(*line, |rest, cell| rest.split_once(cell).map(|(_, rest)| rest)).is_some();
    ensure!(text.lines().any(|line| has(&line)), "no row with {cells:?} in\n{text}");
    Ok(())
}

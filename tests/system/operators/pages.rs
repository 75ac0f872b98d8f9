//! docs/bpftool.md shows real output. Each of its commands is run on a node like the one that it describes, and the
//! output must equal the page, except for numbers that change each time. `KIAM_WRITE_PAGES=1` updates the page.

mod console;
mod volatile;

use crate::{operators::migration::table, support::knock};
use anyhow::{Context as _, Result, ensure};
use console::Console;
use kiam_tests::{
    node::cgroups::{Driver, Kubepods, Qos},
    system::datapath_scenario,
};
use std::{env, fs, path::Path};

const PAGE: &str = "docs/bpftool.md";
/// From this heading on, the node has no TCX links.
const CLSACT: &str = "## Without TCX links";
/// UID of a pod on the node.
const UID: &str = "6e25a0c4-6c5b-4e9f-8f0d-6f6f3f1f4f5d";

/// Runs the commands of a part of the page on a node whose agent attaches its programs like this.
fn expect_real(tc: &str, part: impl Fn(&str) -> String) {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _on_the_node = kubepods.add_pod(&system.topology.node, UID, Qos::BestEffort)?;
        let pod = system.topology.add_pod(1)?;
        system.agent_flags = vec![
            "--host-network-pods=enforce".to_owned(),
            format!("--kubepods-cgroup={}", kubepods.path().display()),
            format!("--tc={tc}"),
        ];
        system.spawn_agent()?.wait_armed()?;
        knock(&pod)?;
        let page = table::page(PAGE)?;
        let shown = part(&page);
        let real = Console { system, kubepods: kubepods.path() }.rewritten(&shown)?;
        match env::var_os("KIAM_WRITE_PAGES") {
            Some(_) => write(&page.replace(&shown, &real)),
            None => compare(&volatile::without(&shown)?, &volatile::without(&real)?),
        }
    });
}

fn compare(shown: &str, real: &str) -> Result<()> {
    for (shown, real) in shown.lines().zip(real.lines()) {
        ensure!(
            shown == real,
            "{PAGE} shows\n  {shown}\nbut the output is\n  {real}\n(KIAM_WRITE_PAGES=1 updates the page)"
        );
    }
    ensure!(shown == real, "{PAGE} shows more or less than the output:\n{real}");
    Ok(())
}

fn write(page: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}

fn parts(page: &str) -> (&str, &str) {
    page.split_at(page.find(CLSACT).unwrap_or(page.len()))
}

/// The output of bpftool is the one in the page.
#[test]
fn bpftool_output_matches_the_page() {
    expect_real("tcx", |page| parts(page).0.to_owned());
}

/// The output of bpftool for filters is the one in the page.
#[test]
fn bpftool_output_of_filters_matches_the_page() {
    expect_real("clsact", |page| parts(page).1.to_owned());
}

//! Traces of an agent in the kernel: compared before and after, to show that `cleanup` leaves nothing.

use crate::node::{netns::Netns, process};
use anyhow::{Result, ensure};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Interfaces, rules, routes, filters and pins of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    interfaces: Vec<String>,
    rules: Vec<String>,
    routes: Vec<String>,
    filters: Vec<String>,
    pins: Vec<String>,
}

impl Footprint {
    /// Takes the present footprint.
    pub fn take(node: &Netns, bpffs: &Path) -> Result<Self> {
        let (mut interfaces, mut rules, mut routes, mut filters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for family in ["-4", "-6"] {
            rules.push(node.ip(&format!("{family} rule show"))?);
            routes.push(node.ip(&format!("{family} route show table all"))?);
        }
        for link in node.ip("-o link show")?.lines() {
            let Some(name) = link.split(": ").nth(1).and_then(|name| name.split('@').next()) else { continue };
            interfaces.push(name.to_owned());
            filters.push(process::run(node.command("tc").args(["qdisc", "show", "dev", name]))?);
            filters.push(process::run(node.command("tc").args(["filter", "show", "dev", name, "ingress"]))?);
        }
        let mut pins = Vec::new();
        list(bpffs, &mut pins)?;
        Ok(Self { interfaces, rules, routes, filters, pins })
    }
}

fn list(folder: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        into.push(entry.path().display().to_string());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), into)?;
        }
    }
    into.sort();
    Ok(())
}

/// Programs, maps and links that a process holds, by the ids that `bpftool` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfObjects {
    /// `prog`, `map` or `link`, and the id.
    ids: BTreeSet<(&'static str, u32)>,
}

impl BpfObjects {
    /// Returns the objects that a process has open.
    pub fn of(pid: u32) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
            for line in info.lines() {
                let Some((key, value)) = line.split_once(':') else { continue };
                let kind = match key {
                    "prog_id" => "prog",
                    "map_id" => "map",
                    "link_id" => "link",
                    _ => continue,
                };
                if let Ok(id) = value.trim().parse::<u32>() {
                    ids.insert((kind, id));
                }
            }
        }
        Ok(Self { ids })
    }

    /// Returns their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Asserts that the kernel has none of them any longer.
    pub fn expect_gone(&self) -> Result<()> {
        for (kind, id) in &self.ids {
            let output = process::output(Command::new("bpftool").args([kind, "show", "id", &id.to_string()]))?;
            ensure!(!output.status.success(), "left over: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    }
}

//! What one run of each program takes, as the kernel counts it (`BPF_ENABLE_STATS`).

mod empty;
mod enforced;

use super::ways::{Kind, Way};
use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use comfy_table::{Table, presets};
use empty::Empty;
use kiam_common::abi::{FLOWS_PER_OWNER, IMDS_PORT, PROG_SK_LOOKUP, PROG_TC_INGRESS};
use kiam_tests::{
    clients::{M4, forge},
    node::{process, topology::NODE_V4},
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
};

/// Connections, requests and packets that are counted.
const CONNECTIONS: usize = 5_000;
const REQUESTS: usize = 20_000;
const PACKETS: usize = 50_000;
/// First packets while their owner's ring has room; as many again do without. Together fewer than the listener may have
/// half-open.
const FIRSTS: usize = FLOWS_PER_OWNER as usize;
/// An address that leads to the pod and that it does not answer at.
const MUTE: Ipv4Addr = Ipv4Addr::new(10, 9, 7, 1);

/// One line of the table.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    what: &'static str,
    program: &'static str,
    nanoseconds: f64,
}

/// Runs and their time.
#[derive(Debug, Clone, Copy, Default)]
struct Runs {
    count: f64,
    nanoseconds: f64,
}

impl Runs {
    fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, nanoseconds: self.nanoseconds - before.nanoseconds }
    }

    fn each(self) -> f64 {
        self.nanoseconds / self.count.max(1.0)
    }
}

/// Counts while a pod does one thing at a time.
pub(super) fn measure(ways: &[Way]) -> Result<Vec<Cost>> {
    let way = ways.iter().find(|way| way.kind == Kind::Redirect).context("the redirect is one of the ways")?;
    // The kernel counts for as long as this is open.
    let _counting = enable_stats(Stats::RunTime).context("having the kernel count")?;
    Ok([count(way)?, enforced::count()?].concat())
}

/// What one run of a program takes while something is done.
fn cost(what: &'static str, program: &'static str, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = runs(program)?;
    work()?;
    Ok(Cost { what, program, nanoseconds: runs(program)?.since(before).each() })
}

fn count(way: &Way) -> Result<Vec<Cost>> {
    let ingress = |what, work: &dyn Fn() -> Result<()>| cost(what, PROG_TC_INGRESS, work);
    let other = ingress("a packet to elsewhere", &|| send_elsewhere(way))?;
    let nothing = nothing(way)?;
    // Before anybody else's records: nobody reads them here.
    let lookups = runs(PROG_SK_LOOKUP)?;
    let first = ingress("the packet that opens a connection, with its record", &|| open(way, 0))?;
    let nanoseconds = runs(PROG_SK_LOOKUP)?.since(lookups).each();
    let lookup = Cost { what: "a lookup of M (within the first)", program: PROG_SK_LOOKUP, nanoseconds };
    let flood = ingress("the same in a flood, when the oldest record gives way", &|| open(way, FIRSTS))?;
    let established = ingress("a packet of a connection", &|| way.requests(REQUESTS))?;
    let connections = ingress("all packets of short connections", &|| way.connections(CONNECTIONS).map(drop))?;
    Ok(vec![nothing, first, lookup, flood, established, connections, other])
}

/// What the kernel's own counting takes, and being called.
fn nothing(way: &Way) -> Result<Cost> {
    let _attached = Empty::attach(way.node(), &way.pod.interface)?;
    cost("nothing at all", empty::NAME, || send_elsewhere(way))
}

/// Begins connections and no more: only their first packets are sent, and nobody answers the node.
fn open(way: &Way, already: usize) -> Result<()> {
    let (node, interface) = (way.node(), &way.pod.interface);
    node.ip(&format!("route replace {MUTE}/32 dev {interface}"))?;
    node.ip(&format!("neigh replace {MUTE} lladdr 02:00:00:00:09:01 dev {interface} nud permanent"))?;
    way.pod.enter(|| {
        (already..already + FIRSTS).try_for_each(|number| {
            let source = SocketAddr::new(MUTE.into(), 1024 + u16::try_from(number)?);
            forge::send_segment(source, M4, IMDS_PORT, forge::SYN)
        })
    })
}

fn send_elsewhere(way: &Way) -> Result<()> {
    way.pod.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for _ in 0..PACKETS {
            // Refused by ICMP now and then: the packet was sent all the same.
            drop(socket.send_to(b"elsewhere", (NODE_V4, 9)));
        }
        Ok(())
    })
}

/// What `bpftool` says of the programs of this name: one agent runs while this is asked.
fn runs(program: &str) -> Result<Runs> {
    let text = process::run(Command::new("bpftool").args(["-j", "prog", "show", "name", program]))?;
    let shown: serde_json::Value = serde_json::from_str(&text)?;
    let programs = shown.as_array().cloned().unwrap_or_else(|| vec![shown]);
    let sum = |field: &str| programs.iter().filter_map(|program| program[field].as_f64()).sum::<f64>();
    Ok(Runs { count: sum("run_cnt"), nanoseconds: sum("run_time_ns") })
}

pub(super) fn table(costs: &[Cost]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["one run", "program", "ns"]);
    for Cost { what, program, nanoseconds } in costs {
        table.add_row([(*what).to_owned(), (*program).to_owned(), format!("{nanoseconds:.0}")]);
    }
    table
}

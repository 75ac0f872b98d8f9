//! Time that one run of each program takes, as counted by the kernel (`BPF_ENABLE_STATS`).

mod empty;
mod enforced;

use super::variants::{Kind, Variant};
use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use comfy_table::{Table, presets};
use empty::Empty;
use kiam_common::abi::{FLOWS_PER_OWNER, IMDS_PORT, PROG_SK_LOOKUP, PROG_TC_INGRESS};
use kiam_tests::{
    clients::{IMDS4, forge},
    node::{process, topology::NODE_V4},
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
};

/// Number of connections, requests and packets that are measured.
const CONNECTIONS: usize = 5_000;
const REQUESTS: usize = 20_000;
const PACKETS: usize = 50_000;
/// First packets sent while the owner's ring has room; the same number again is sent without room. The sum stays below
/// the listener's limit of half-open connections.
const FIRSTS: usize = FLOWS_PER_OWNER as usize;
/// An address that is routed to the pod and at which the pod does not answer.
const MUTE: Ipv4Addr = Ipv4Addr::new(10, 9, 7, 1);

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    what: &'static str,
    program: &'static str,
    nanoseconds: f64,
}

/// Number of runs and their total time.
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

/// Measures while a pod does one thing at a time.
pub(super) fn measure(variants: &[Variant]) -> Result<Vec<Cost>> {
    let variant = variants
        .iter()
        .find(|variant| variant.kind == Kind::Redirect)
        .context("the redirect is one of the variants")?;
    // The kernel counts as long as this is open.
    let _counting = enable_stats(Stats::RunTime).context("enable the kernel's run-time statistics")?;
    Ok([count(variant)?, enforced::count()?].concat())
}

/// Returns the time that one run of a program takes during `work`.
fn cost(what: &'static str, program: &'static str, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = runs(program)?;
    work()?;
    Ok(Cost { what, program, nanoseconds: runs(program)?.since(before).each() })
}

fn count(variant: &Variant) -> Result<Vec<Cost>> {
    let ingress = |what, work: &dyn Fn() -> Result<()>| cost(what, PROG_TC_INGRESS, work);
    let other = ingress("packet to another address", &|| send_elsewhere(variant))?;
    let nothing = nothing(variant)?;
    // Before there are other owners' records: no process reads them here.
    let lookups = runs(PROG_SK_LOOKUP)?;
    let first = ingress("packet that opens a connection, with its record", &|| open(variant, 0))?;
    let nanoseconds = runs(PROG_SK_LOOKUP)?.since(lookups).each();
    let lookup = Cost { what: "lookup of the IMDS listener (part of the first)", program: PROG_SK_LOOKUP, nanoseconds };
    let flood = ingress("the same in a flood, when the oldest record is overwritten", &|| open(variant, FIRSTS))?;
    let established = ingress("packet of an open connection", &|| variant.requests(REQUESTS))?;
    let connections =
        ingress("all packets of short connections, on average", &|| variant.connections(CONNECTIONS).map(drop))?;
    Ok(vec![nothing, first, lookup, flood, established, connections, other])
}

/// Measures the kernel's own counting and the call of a program.
fn nothing(variant: &Variant) -> Result<Cost> {
    let _attached = Empty::attach(variant.node(), &variant.pod.interface)?;
    cost("empty program", empty::NAME, || send_elsewhere(variant))
}

/// Opens connections without completing them: only their first packets are sent, and the node's replies are not
/// answered.
fn open(variant: &Variant, already: usize) -> Result<()> {
    let (node, interface) = (variant.node(), &variant.pod.interface);
    node.ip(&format!("route replace {MUTE}/32 dev {interface}"))?;
    node.ip(&format!("neigh replace {MUTE} lladdr 02:00:00:00:09:01 dev {interface} nud permanent"))?;
    variant.pod.enter(|| {
        (already..already + FIRSTS).try_for_each(|number| {
            let source = SocketAddr::new(MUTE.into(), 1024 + u16::try_from(number)?);
            forge::send_segment(source, IMDS4, IMDS_PORT, forge::SYN)
        })
    })
}

fn send_elsewhere(variant: &Variant) -> Result<()> {
    variant.pod.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for _ in 0..PACKETS {
            // ICMP refuses some of them; the packet was sent all the same.
            drop(socket.send_to(b"elsewhere", (NODE_V4, 9)));
        }
        Ok(())
    })
}

/// Returns the kernel's statistics of the programs of this name; only one agent runs at the same time.
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

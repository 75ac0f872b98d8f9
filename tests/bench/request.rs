//! Cost of a warm request for credentials, compared with the least that a server on this machine needs: a bare hyper
//! server on the node's address, over the same veth, with responses of the same size. Both are measured in turn in one
//! run; the medians of the rounds count.

use crate::{
    ASKING, SERVING,
    load::{self, Figures, Load},
    pin, yardstick,
};
use anyhow::Result;
use comfy_table::{Table, presets};
use kiam_tests::{
    clients::{IMDS4, Pod, ROLES},
    node::topology::{NODE_V4, PodNetwork},
    system::System,
};
use std::net::SocketAddr;

/// Rounds; the median counts.
const ROUNDS: usize = 5;
/// Port of the yardstick on the node.
const YARDSTICK_PORT: u16 = 8099;

/// Runs the benchmark and prints its table.
///
/// # Errors
/// Something cannot be started, or an answer is wrong.
pub(crate) fn run() -> Result<()> {
    pin(SERVING)?;
    let mut system = System::stage()?;
    system.agent_flags.push("--level=warn".to_owned());
    system.server_flags.push("--level=warn".to_owned());
    let pod = system.serving_pod("reader")?;
    // From here on every request is a warm one.
    let answer = system.wait_for_credentials(&pod, IMDS4, "reader")?;
    let path = format!("{ROLES}reader");
    let yardstick = SocketAddr::new(NODE_V4.into(), YARDSTICK_PORT);
    let _yardstick = yardstick::Yardstick::start(&system.topology.node, yardstick, answer.body.len())?;

    let kiam = SocketAddr::new(IMDS4, 80);
    let mut figures = [Vec::new(), Vec::new()];
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (target, figures) in [yardstick, kiam].into_iter().zip(&mut figures) {
            figures.push(measure(&pod, target, &path)?);
        }
    }
    let [yardstick, kiam] = figures.map(|rounds| Figures::median(&rounds));
    println!("{}", table(&yardstick, &kiam));
    Ok(())
}

fn measure(pod: &PodNetwork, target: SocketAddr, path: &str) -> Result<Figures> {
    Pod::new(pod).run(|| {
        pin(ASKING)?;
        let load = Load { target, path: path.to_owned() };
        Ok(Figures { latency: load.one_connection()?, requests_per_second: load.many_connections()? })
    })
}

fn table(yardstick: &Figures, kiam: &Figures) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["warm request for credentials", "bare hyper", "kiam", "ratio"]);
    let microseconds = |figure: f64| format!("{:.0} µs", figure * 1e6);
    let ratio = |kiam: f64, yardstick: f64| format!("{:.2}", kiam / yardstick);
    for (name, of) in [
        ("one connection, p50", (|figures: &Figures| figures.latency.p50) as fn(&Figures) -> f64),
        ("one connection, p99", |figures| figures.latency.p99),
    ] {
        let (bare, ours) = (of(yardstick), of(kiam));
        table.add_row([name.to_owned(), microseconds(bare), microseconds(ours), ratio(ours, bare)]);
    }
    let (bare, ours) = (yardstick.requests_per_second, kiam.requests_per_second);
    let name = format!("{} connections, requests/s on one core", load::CONNECTIONS);
    table.add_row([name, format!("{bare:.0}"), format!("{ours:.0}"), ratio(ours, bare)]);
    table
}

//! What the redirect costs a connection: one and the same bare hyper, asked from a pod over a new connection each time,
//! behind our redirect, on the node's address with nothing in the way, and behind an iptables DNAT of M to that address.
//! All three in one run, round by round in turn; medians of the rounds.

mod figures;
mod plot;
mod programs;
mod ways;

use crate::{ASKING, SERVING, pin};
use anyhow::Result;
use figures::{Case, Figures, table};
use std::{path::Path, time::Duration};
use ways::{Kind, Way};

/// Rounds of each case, of which the median counts.
const ROUNDS: usize = 5;
/// Connections of a round, one after another.
const CONNECTIONS: usize = 2_000;
/// The cases: other nat rules of the node, and interfaces that pods are behind.
const CASES: [Case; 5] = [
    Case { rules: 0, interfaces: 1 },
    Case { rules: 1_000, interfaces: 1 },
    Case { rules: 20_000, interfaces: 1 },
    Case { rules: 0, interfaces: 100 },
    Case { rules: 0, interfaces: 1_000 },
];

/// Runs the benchmark, prints its tables, and writes the plot into `folder`.
///
/// # Errors
/// Something cannot be started, or an answer is wrong.
pub(crate) fn run(folder: &Path) -> Result<()> {
    pin(SERVING)?;
    let mut measured = Vec::new();
    let mut programs = Vec::new();
    for case in CASES {
        eprintln!("{} other rules, {} interfaces", case.rules, case.interfaces);
        let ways = Kind::ALL.into_iter().map(|kind| Way::open(kind, case)).collect::<Result<Vec<_>>>()?;
        measured.push((case, measure(&ways)?));
        if case == CASES[0] {
            programs = programs::measure(&ways)?;
        }
    }
    println!("{}", table(&measured));
    println!("{}", programs::table(&programs));
    let plot = folder.join("datapath.svg");
    plot::write(&plot, &measured)?;
    println!("plot: {}", plot.display());
    Ok(())
}

/// Prints what one run of each program takes.
///
/// # Errors
/// Something cannot be started, or an answer is wrong.
pub(crate) fn run_programs() -> Result<()> {
    pin(SERVING)?;
    println!("{}", programs::table(&programs::measure(&[Way::open(Kind::Redirect, CASES[0])?])?));
    Ok(())
}

/// The median connection of each way, and how long the agent took to attach.
fn measure(ways: &[Way]) -> Result<Figures> {
    let mut rounds = [const { Vec::new() }; Kind::ALL.len()];
    for _ in 0..ROUNDS {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            rounds.push(way.connections(CONNECTIONS)?);
        }
    }
    let p50 = rounds.map(|mut medians: Vec<Duration>| {
        medians.sort();
        medians[medians.len() / 2]
    });
    Ok(Figures { p50, attached: ways.iter().find_map(|way| way.attached) })
}

/// Binds the client's thread to its core.
fn pin_client() -> Result<()> {
    pin(ASKING)
}

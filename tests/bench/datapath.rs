//! Cost of the redirect per connection. The same bare hyper server is requested from a pod, each time over a new
//! connection: behind our redirect, directly at the node's address, and behind an iptables DNAT of the IMDS address to
//! the node's. All three variants run in turn, round by round; the medians of the rounds count.

mod figures;
mod plot;
mod programs;
mod variants;

use crate::{ASKING, SERVING, pin};
use anyhow::Result;
use figures::{Case, Figures, table};
use std::{path::Path, time::Duration};
use variants::{Kind, Variant};

/// Rounds of each case; the median counts.
const ROUNDS: usize = 5;
/// Connections per round, one after another.
const CONNECTIONS: usize = 2_000;
/// Cases: other nat rules on the node, and interfaces that lead to pods.
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
        let variants = Kind::ALL.into_iter().map(|kind| Variant::open(kind, case)).collect::<Result<Vec<_>>>()?;
        measured.push((case, measure(&variants)?));
        if case == CASES[0] {
            programs = programs::measure(&variants)?;
        }
    }
    println!("{}", table(&measured));
    println!("{}", programs::table(&programs));
    let plot = folder.join("datapath.svg");
    plot::write(&plot, &measured)?;
    println!("plot: {}", plot.display());
    Ok(())
}

/// Prints the time that one run of each program takes.
///
/// # Errors
/// Something cannot be started, or an answer is wrong.
pub(crate) fn run_programs() -> Result<()> {
    pin(SERVING)?;
    println!("{}", programs::table(&programs::measure(&[Variant::open(Kind::Redirect, CASES[0])?])?));
    Ok(())
}

/// Returns the median connection time of each variant, and the time the agent took to attach.
fn measure(variants: &[Variant]) -> Result<Figures> {
    let mut rounds = [const { Vec::new() }; Kind::ALL.len()];
    for _ in 0..ROUNDS {
        for (variant, rounds) in variants.iter().zip(&mut rounds) {
            rounds.push(variant.connections(CONNECTIONS)?);
        }
    }
    let p50 = rounds.map(|mut medians: Vec<Duration>| {
        medians.sort();
        medians[medians.len() / 2]
    });
    Ok(Figures { p50, attached: variants.iter().find_map(|variant| variant.attached) })
}

/// Binds the client's thread to its core.
fn pin_client() -> Result<()> {
    pin(ASKING)
}

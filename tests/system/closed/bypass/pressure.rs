//! Attacks that continue while something happens to the agent.

use super::Attacker;
use anyhow::{Result, ensure};
use kiam_tests::eventually::eventually;
use kiam_tests::{
    node::process::Daemon,
    system::{SOON, System},
};

/// Routes that are tried repeatedly: one answered by the agent, one refused by the program or the guard, one handled by
/// neither hook.
const ROUTES: [&str; 3] = ["tcp-v4", "tcp-v6", "packet-udp"];

/// Processes of one attacker, one per route; killed when dropped.
#[derive(Debug)]
pub(super) struct Pressure {
    attacks: Vec<Daemon>,
}

impl Pressure {
    /// Starts them, and waits until each has tried once.
    pub(super) fn start(system: &System, name: &str, from: Attacker<'_>) -> Result<Self> {
        let attacks = ROUTES.iter().map(|route| {
            let log = system.folder().join(format!("{name}-{route}.log"));
            Daemon::spawn(route, &mut from.attack(system, &[route, "--again"]), &log)
        });
        let pressure = Self { attacks: attacks.collect::<Result<_>>()? };
        eventually("each route has been tried", SOON, || pressure.expect_tried(1))?;
        Ok(pressure)
    }

    /// Asserts that each route was tried at least this often, and that no process has given up.
    pub(super) fn expect_tried(&self, times: usize) -> Result<()> {
        for attack in &self.attacks {
            let log = attack.log();
            let tried = log.lines().filter(|line| *line == "again").count();
            ensure!(tried >= times, "tried {tried} times: {log}");
        }
        Ok(())
    }
}

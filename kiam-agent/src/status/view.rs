//! The status for people: a summary line, tables, and problems last, where a terminal shows them.

use super::{Status, tables};
use crate::report::{Kernel, Report};
use std::io::{self, IsTerminal as _, Write};

const GREEN: &str = "\x1b[1;32m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// Prints the status, with colours only on a terminal.
pub(super) fn print(status: &Status, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(status, io::stdout().is_terminal()))?;
    if let Some(agent) = &status.agent {
        print_agent(agent, out)?;
    }
    print_kernel(status, out)?;
    section(out, "Problems", &tables::problems(&status.problems))
}

fn headline(status: &Status, colours: bool) -> String {
    let text = match &status.agent {
        None => "no agent answers on this node".to_owned(),
        Some(agent) => {
            let state = match (agent.ready, &agent.datapath) {
                (true, Some(_)) => "serves this node",
                (true, None) => "stands by: another agent serves this node",
                (false, _) => "is not ready",
            };
            let conditions = &agent.status.conditions;
            let met = conditions.iter().filter(|condition| condition.problem.is_none()).count();
            format!("kiam-agent {} {state}; {met} of {} conditions met", agent.version, conditions.len())
        }
    };
    match (colours, status.ok) {
        (false, _) => text,
        (true, true) => format!("{GREEN}{text}{PLAIN}"),
        (true, false) => format!("{RED}{text}{PLAIN}"),
    }
}

fn print_agent(agent: &Report, out: &mut impl Write) -> io::Result<()> {
    if let Some(datapath) = &agent.datapath {
        section(out, "In use, and why", &tables::choices(&datapath.choices))?;
        section(out, "Interfaces", &tables::interfaces(&datapath.interfaces))?;
    }
    section(out, "Packets to the metadata service", &tables::packets(&agent.status.packets))?;
    section(out, "Since the agent started", &tables::upkeep(&agent.status))
}

fn print_kernel(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let Kernel { owner, pins, attached, fence, exempt } = &status.kernel;
    let loaded =
        status.agent.iter().filter_map(|agent| agent.datapath.as_ref()).flat_map(|datapath| &datapath.programs);
    section(out, "Programs", &tables::programs(attached, loaded))?;
    section(out, "Fence", &tables::fence(fence))?;
    section(out, "Pins", &tables::pins(pins))?;
    let owner = owner.as_ref().map_or("no agent yet".to_owned(), |owner| {
        format!("generation {}, by an agent with --run-dir={}", owner.generation, owner.run_dir)
    });
    section(out, "Claimed by", &owner)?;
    section(out, "Exempt pods", &tables::exempt(exempt))
}

/// Prints a title with a table below it, or with a single line after it.
fn section(out: &mut impl Write, title: &str, text: &str) -> io::Result<()> {
    let space = if text.contains('\n') { "\n" } else { ": " };
    writeln!(out, "{title}{space}{text}")
}

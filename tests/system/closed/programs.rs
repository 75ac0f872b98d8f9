//! The verifier's view of the programs.

use anyhow::{Context as _, ensure};
use aya::util::KernelVersion;
use kiam_tests::{
    node::cgroups::{Driver, Kubepods, Qos},
    system::datapath_scenario,
};

/// Maximum of instructions that the verifier may process for one program: a tenth of the limit before Linux 5.2
/// (`BPF_COMPLEXITY_LIMIT_INSNS`), so that a change that makes it follow many more paths is noticed.
const INSTRUCTIONS_MAX: u32 = 4_096;

/// Parses `loaded program="kiam_guard" id=7 verified_instructions=309`, which the agent logs for each program that it
/// loads. A kernel before 5.16 does not report the number.
fn loaded(line: &str) -> Option<(&str, Option<&str>)> {
    let (program, rest) = line.split_once("loaded program=\"")?.1.split_once('"')?;
    Some((program, rest.split_once("verified_instructions=").map(|(_, count)| count.trim_end())))
}

fn within_the_bound(level: &str) {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, "11111111-1111-1111-1111-111111111111", Qos::BestEffort)?;
        // The capabilities determine what the verifier accepts.
        system.binaries = system.binaries.with_shipped_capabilities(&system.folder())?;
        system.agent_flags = vec![
            format!("--level={level}"),
            "--redirect=tc,cgroup".to_owned(),
            format!("--kubepods-cgroup={}", kubepods.path().display()),
        ];
        let log = system.spawn_agent().and_then(|agent| {
            agent.wait_armed()?;
            Ok(agent.daemon.log())
        })?;
        let programs: Vec<(&str, Option<&str>)> = log.lines().filter_map(loaded).collect();
        ensure!(programs.len() == 13, "the agent reports {programs:?}");
        let is_reported = KernelVersion::current()? >= KernelVersion::new(5, 16, 0);
        for (program, count) in programs {
            ensure!(count.is_some() == is_reported, "{program}: {count:?}");
            let Some(count) = count else { continue };
            let instructions: u32 = count.parse().with_context(|| format!("{program}: {count}"))?;
            println!("{program:<16} {instructions:>5} instructions verified at --level={level}");
            ensure!(instructions <= INSTRUCTIONS_MAX, "{program}: {instructions}, more than {INSTRUCTIONS_MAX}");
        }
        Ok(())
    });
}

#[test]
fn few_verified_instructions_at_level_info() {
    within_the_bound("info");
}

/// The verifier processes few instructions for each program, also with debug lines in the agent.
#[test]
fn few_verified_instructions_at_level_debug() {
    within_the_bound("debug");
}

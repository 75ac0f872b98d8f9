//! The programs as the kernel's verifier sees them.

use anyhow::{Context as _, ensure};
use aya::util::KernelVersion;
use kiam_tests::{
    node::cgroups::{Driver, Kubepods, Qos},
    system::datapath_scenario,
};

/// Most instructions that the verifier may have to look at for one program: a tenth of what it refused before Linux 5.2
/// (`BPF_COMPLEXITY_LIMIT_INSNS`), so that a change which makes it walk many more paths is noticed.
const INSTRUCTIONS_MAX: u32 = 4_096;

/// `loaded program="kiam_guard" id=7 verified_instructions=309`, as the agent logs each program that it loads; a kernel
/// before 5.16 does not tell the number.
fn loaded(line: &str) -> Option<(&str, Option<&str>)> {
    let (program, rest) = line.split_once("loaded program=\"")?.1.split_once('"')?;
    Some((program, rest.split_once("verified_instructions=").map(|(_, count)| count.trim_end())))
}

fn within_the_bound(level: &str) {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, "11111111-1111-1111-1111-111111111111", Qos::BestEffort)?;
        // What it has decides what the verifier lets pass.
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
        ensure!(programs.len() == 13, "the agent tells of {programs:?}");
        let is_told = KernelVersion::current()? >= KernelVersion::new(5, 16, 0);
        for (program, count) in programs {
            ensure!(count.is_some() == is_told, "{program}: {count:?}");
            let Some(count) = count else { continue };
            let instructions: u32 = count.parse().with_context(|| format!("{program}: {count}"))?;
            println!("{program:<16} {instructions:>5} instructions verified at --level={level}");
            ensure!(instructions <= INSTRUCTIONS_MAX, "{program}: {instructions}, more than {INSTRUCTIONS_MAX}");
        }
        Ok(())
    });
}

#[test]
fn the_verifier_looks_at_few_instructions() {
    within_the_bound("info");
}

/// The verifier processes few instructions for each program, also with debug lines in the agent.
#[test]
fn verifier_processes_few_instructions() {
    within_the_bound("debug");
}

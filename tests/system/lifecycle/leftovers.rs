//! `kiam-agent cleanup` leaves nothing behind, after a stop and after a crash; and only then is the node open again.

use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES},
    eventually::eventually,
    fakes::canary::NODE_ROLE,
    node::topology::PodNetwork,
    system::{BpfObjects, Footprint, SOON, System, scenario},
};

/// Starts an agent. Returns a pod, the footprint before the start, and the agent's kernel objects.
fn run_agent(system: &mut System, flags: &[&str]) -> Result<(PodNetwork, Footprint, BpfObjects)> {
    system.agent_flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    let pod = system.add_pod(1, "reader")?;
    system.start_server()?;
    let before = Footprint::take(&system.topology.node, &system.bpffs())?;
    system.start_agent()?;
    system.wait_for_role(&pod, IMDS4, "reader")?;
    let objects = BpfObjects::of(system.agent()?.parent_pid())?;
    ensure!(objects.len() >= 4, "fewer than two programs and their maps: {objects:?}");
    ensure!(Footprint::take(&system.topology.node, &system.bpffs())? != before, "the agent changed nothing");
    Ok((pod, before, objects))
}

fn expect_as_before(system: &System, pod: &PodNetwork, before: &Footprint, objects: &BpfObjects) -> Result<()> {
    let after = Footprint::take(&system.topology.node, &system.bpffs())?;
    ensure!(after == *before, "before: {before:#?}\nafter: {after:#?}");
    // The kernel frees them a moment after the last reference.
    eventually("programs, maps and links are gone", SOON, || objects.expect_gone())?;
    for imds in BOTH {
        let answer = Pod::new(pod).get(imds, ROLES)?;
        ensure!(answer.text() == NODE_ROLE, "the node is not open: {imds} answers {answer:?}");
    }
    system.canary.forget_closed(&system.topology.node, pod)
}

#[test]
fn after_a_stop_cleanup_leaves_nothing() {
    scenario(|system| {
        let (pod, before, objects) = run_agent(system, &[])?;
        system.agent()?.stop()?;
        ensure!(Footprint::take(&system.topology.node, &system.bpffs())? != before, "the stop opened the node");
        system.expect_no_leak()?;
        system.clean_up()?;
        expect_as_before(system, &pod, &before, &objects)?;
        // Having nothing to do is no failure.
        system.clean_up().map(drop)
    });
}

/// A cleanup while an agent runs is refused and changes nothing.
#[test]
fn cleanup_is_refused_while_an_agent_runs() {
    scenario(|system| {
        let (pod, before, objects) = run_agent(system, &[])?;
        let refused = system.clean_up().err().map(|error| format!("{error:#}"));
        ensure!(refused.as_ref().is_some_and(|text| text.contains("stop it first")), "{refused:?}");
        crate::support::expect_role(&pod, "reader")?;
        system.agent()?.stop()?;
        let key = system.folder().join("run/token.key");
        ensure!(key.exists(), "no {}", key.display());
        system.clean_up()?;
        ensure!(!key.exists(), "{} is left", key.display());
        expect_as_before(system, &pod, &before, &objects)
    });
}

#[test]
fn after_a_crash_cleanup_leaves_nothing() {
    scenario(|system| {
        let (pod, before, objects) = run_agent(system, &[])?;
        system.agent()?.kill_both()?;
        system.expect_no_leak()?;
        system.clean_up()?;
        expect_as_before(system, &pod, &before, &objects)
    });
}

#[test]
fn the_clsact_filter_serves_and_is_cleaned_up() {
    scenario(|system| {
        let (pod, before, objects) = run_agent(system, &["--tc=clsact"])?;
        crate::support::expect_role(&pod, "reader")?;
        system.agent()?.kill_both()?;
        crate::support::expect_nothing(system, &pod)?;
        system.start_agent()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        system.agent()?.stop()?;
        system.clean_up()?;
        expect_as_before(system, &pod, &before, &objects)
    });
}

#[test]
fn interfaces_that_come_and_go_leave_nothing() {
    scenario(|system| {
        let (pod, before, objects) = run_agent(system, &[])?;
        let pins = |system: &System| Ok::<_, anyhow::Error>(std::fs::read_dir(system.bpffs().join("kiam/v1"))?.count());
        let pinned = pins(system)?;
        for _ in 0..3 {
            let passing: Vec<PodNetwork> =
                (10..15).map(|number| system.add_pod(number, "writer")).collect::<Result<_>>()?;
            for pod in &passing {
                system.wait_for_role(pod, IMDS4, "writer")?;
            }
            drop(passing);
            (10..15).try_for_each(|number| system.kube.delete_pod("open", &format!("pod-{number}")))?;
        }
        eventually("the pins of gone interfaces are gone", SOON, || {
            let now = pins(system)?;
            ensure!(now == pinned, "{now} pins, before {pinned}");
            Ok(())
        })?;
        system.agent()?.stop()?;
        system.clean_up()?;
        expect_as_before(system, &pod, &before, &objects)
    });
}

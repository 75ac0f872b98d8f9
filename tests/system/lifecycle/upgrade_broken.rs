//! Failed upgrades: one of the two agents dies or is frozen, at any step. The other one serves the pods.

use crate::{
    lifecycle::{
        fake_successor::FakeSuccessor,
        load,
        upgrade::{clients, expect_waiting, three_served},
    },
    support::{empty_slots, expect_role, generation, set_generation},
};
use anyhow::{Context as _, bail, ensure};
use kiam_tests::{
    clients::IMDS4,
    node::process,
    system::{SOON, scenario},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Number of kills of a new agent.
const KILLS: usize = 15;
/// Time in which a new agent starts and takes over on a busy machine.
const A_START: Duration = Duration::from_secs(3);
/// Log line of an agent that has taken the datapath.
const CLAIMED: &str = "claimed the datapath of this node";
/// Address of a server that does not exist.
const NO_SERVER: &str = "--server-address=localhost:9";
/// Connections that one killed agent can have accepted, of three clients over two families.
const CUT_BY_ONE: usize = 6;

/// A new agent that is killed at any time leaves the node to the old one.
#[test]
fn successor_killed_at_any_time() {
    scenario(|system| {
        let pods = three_served(system)?;
        let (taken, tally) = load::during(&clients(&pods), system, |system| {
            let mut taken = 0;
            for kill in 0..KILLS {
                let mut new = system.spawn_successor(&[])?;
                // From before its first message until it has become the owner.
                if kill + 1 < KILLS {
                    thread::sleep(A_START * u32::try_from(kill)? / u32::try_from(KILLS)?);
                } else {
                    new.daemon.wait_log(CLAIMED)?;
                }
                new.kill_whatever_runs()?;
                taken += usize::from(new.daemon.log().contains(CLAIMED));
                system.agent()?.wait_ready()?;
            }
            Ok(taken)
        })?;
        ensure!(taken > 0 && taken < KILLS, "{taken} of {KILLS} had taken the datapath");
        tally.expect_cut_at_most(CUT_BY_ONE * KILLS)?;
        expect_role(&pods[0], "reader")?;
        system.upgrade()?;
        expect_role(&pods[0], "reader")
    });
}

/// A new agent that is killed while it holds the listener slots costs no more than a moment.
#[test]
fn successor_killed_while_it_holds_the_slots() {
    scenario(|system| {
        let pods = three_served(system)?;
        for _ in 0..3 {
            let mut successor = FakeSuccessor::announce(system)?;
            successor.take()?;
            // A killed successor leaves its claim, and slots without its sockets.
            let generation = generation(system)? + 1;
            set_generation(system, generation)?;
            empty_slots(system)?;
            let died = Instant::now();
            drop(successor);
            expect_role(&pods[0], "reader")?;
            ensure!(died.elapsed() < Duration::from_secs(5), "served after {:?}", died.elapsed());
            ensure!(crate::support::generation(system)? == generation + 1, "the old agent has not claimed it again");
        }
        system.upgrade()?;
        expect_role(&pods[0], "reader")
    });
}

/// A successor that takes the datapath and does nothing loses it again.
#[test]
fn idle_successor_loses_the_datapath() {
    scenario(|system| {
        let pods = three_served(system)?;
        let mut successor = FakeSuccessor::announce(system)?;
        successor.take()?;
        empty_slots(system)?;
        system.agent()?.daemon.wait_log("this one goes on")?;
        expect_role(&pods[0], "reader")?;
        drop(successor);
        Ok(())
    });
}

/// The successor gives up on an old parent that is frozen, which notices it later.
#[test]
fn frozen_predecessor_parent_is_given_up() {
    scenario(|system| {
        let pods = three_served(system)?;
        system.agent()?.freeze_parent()?;
        // Its worker continues, but cannot answer for the parent.
        let (successor, tally) = load::during(&clients(&pods), system, |system| {
            let mut successor = system.spawn_successor(&[])?;
            successor.wait_ready()?;
            successor.daemon.expect_log("does not answer")?;
            Ok(successor)
        })?;
        tally.expect_all_answered()?;
        let mut old = system.agent.replace(successor).context("the old agent")?;
        let taken = generation(system)?;
        let ((), tally) = load::during(&clients(&pods), system, |_| {
            old.thaw_parent()?;
            old.daemon.wait_log("another agent has taken this node's datapath")?;
            old.daemon.wait_log("standing by")
        })?;
        tally.expect_all_served()?;
        ensure!(generation(system)? == taken, "it took the datapath back");
        // It waits behind the agent that has overtaken it.
        system.agent()?.kill_both()?;
        old.daemon.wait_log("serving again")?;
        old.wait_ready()?;
        expect_role(&pods[2], "lister")
    });
}

/// An old agent whose processes are all frozen is replaced within seconds.
#[test]
fn frozen_predecessor_is_replaced_within_seconds() {
    scenario(|system| {
        let pods = three_served(system)?;
        system.agent()?.freeze_both()?;
        let start = Instant::now();
        let mut successor = system.spawn_successor(&[])?;
        let served = kiam_tests::eventually::eventually("pods are served", SOON, || {
            let reply =
                kiam_tests::clients::Pod::new(&pods[0]).attempt(IMDS4, "/latest/meta-data/", Duration::from_secs(1))?;
            if reply.answer().is_none() { bail!("{reply:?}") } else { Ok(start.elapsed()) }
        })?;
        ensure!(served < Duration::from_secs(10), "after {served:?}");
        successor.wait_ready()?;
        let old = system.agent.replace(successor).context("the old agent")?;
        let ((), tally) = load::during(&clients(&pods), system, |_| {
            process::send_signal(old.worker_pid()?, nix::sys::signal::Signal::SIGCONT)?;
            process::send_signal(old.parent_pid(), nix::sys::signal::Signal::SIGCONT)?;
            old.daemon.wait_log("standing by")
        })?;
        tally.expect_all_served()
    });
}

/// When the old agent dies, the waiting one serves at once.
#[test]
fn waiting_agent_serves_when_the_old_one_dies() {
    scenario(|system| {
        let pods = three_served(system)?;
        let useless = system.spawn_successor(&[NO_SERVER.to_owned()])?;
        expect_waiting(&useless)?;
        system.agent()?.kill_both()?;
        let start = Instant::now();
        // It has no server, but it answers.
        let answer = kiam_tests::clients::Pod::new(&pods[0]).get(IMDS4, kiam_tests::clients::ROLES)?;
        ensure!(
            answer.status == 503 && start.elapsed() < Duration::from_secs(5),
            "{answer:?} after {:?}",
            start.elapsed()
        );
        system.agent = Some(useless);
        system.upgrade()?;
        expect_role(&pods[0], "reader")
    });
}

//! Two agents of one node, one after the other: pods do not notice.

use crate::{
    lifecycle::load::{self, Client, Tally},
    support::{counted, expect_role, generation},
};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, HalfOpen, PATIENCE, Pod, ROLES},
    eventually::{eventually, throughout},
    node::{process::send_signal, topology::PodNetwork},
    system::{Agent, SOON, System, scenario},
};
use nix::sys::signal::Signal;
use std::{thread, time::Duration};

/// Timeout of an AWS client for one answer.
const FAST: Duration = Duration::from_secs(1);
/// Address of a server that does not exist.
const NO_SERVER: &str = "--server-address=localhost:9";

/// Serves three pods with different roles.
pub(crate) fn three_served(system: &mut System) -> Result<[PodNetwork; 3]> {
    system.serving_pods(["reader", "writer", "lister"])
}

pub(crate) fn clients(pods: &[PodNetwork; 3]) -> [Client<'_>; 3] {
    let [one, two, three] = pods;
    [(one, "reader"), (two, "writer"), (three, "lister")]
}

/// Asserts that no packet was dropped for lack of a listener, since the maps were made.
fn expect_no_packet_lost(system: &mut System) -> Result<()> {
    for reason in ["no-listener", "not-assigned"] {
        let count = counted(system, reason)?;
        ensure!(count == 0, "{count} packets: {reason}");
    }
    Ok(())
}

fn upgrade_under_load(upgrades: usize) -> impl FnOnce(&mut System) -> Result<()> {
    move |system| {
        let pods = three_served(system)?;
        let first = generation(system)?;
        let ((), tally) =
            load::during(&clients(&pods), system, |system| (0..upgrades).try_for_each(|_| system.upgrade()))?;
        tally.expect_all_served()?;
        ensure!(tally.served > 20 * upgrades, "too few requests: {tally:?}");
        ensure!(generation(system)? == first + upgrades as u64, "one generation per agent");
        expect_no_packet_lost(system)
    }
}

/// No request is refused or answered wrongly in twenty upgrades.
#[test]
fn no_request_lost_in_twenty_upgrades() {
    scenario(upgrade_under_load(20));
}

/// No request is refused or answered wrongly in an upgrade with clsact filters.
#[test]
fn no_request_lost_upgrading_clsact_filters() {
    scenario(|system| {
        system.agent_flags.push("--tc=clsact".to_owned());
        upgrade_under_load(3)(system)
    });
}

/// An agent that could not serve leaves the node to the one that does.
#[test]
fn agent_that_cannot_serve_does_not_take_over() {
    scenario(|system| {
        let pods = three_served(system)?;
        let first = generation(system)?;
        let ((), tally) = load::during(&clients(&pods), system, |system| {
            let mut useless = system.spawn_successor(&[NO_SERVER.to_owned()])?;
            expect_waiting(&useless)?;
            throughout("it waits", Duration::from_secs(3), || expect_waiting(&useless))?;
            system.agent()?.wait_ready()?;
            ensure!(useless.stop()?.success(), "its exit code");
            Ok(())
        })?;
        tally.expect_all_served()?;
        ensure!(generation(system)? == first, "it took the datapath");
        system.upgrade()?;
        expect_role(&pods[0], "reader")
    });
}

/// Asserts that an agent reports that it waits for its worker and a server.
pub(crate) fn expect_waiting(agent: &Agent) -> Result<()> {
    eventually("it reports that it waits", SOON, || {
        let output = agent.health()?;
        let health = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!output.status.success() && health.contains("FAIL  owner: another agent serves this node"), "{health}");
        Ok(())
    })
}

/// While the old worker is dead each request gets a 503, until the new agent serves.
#[test]
fn upgrade_while_the_old_worker_is_dead() {
    scenario(|system| {
        let pods = three_served(system)?;
        system.agent()?.crash_worker_until_paused(FAST)?;
        let (successor, tally) = load::during(&clients(&pods), system, |system| {
            let mut successor = system.spawn_successor(&[])?;
            successor.wait_ready()?;
            Ok(successor)
        })?;
        tally.expect_all_answered()?;
        ensure!(tally.busy > 0, "the old worker served: {tally:?}");
        let mut old = system.agent.replace(successor).context("the old agent")?;
        let (_, tally) = load::during(&clients(&pods), system, |_| old.stop())?;
        tally.expect_all_served()
    });
}

/// An agent waits for half-open connections, even one that is asked to stop. The last segment of a client's handshake
/// arrives long after its SYN, when another agent already has the slot and the old one was asked to stop.
#[test]
fn half_open_connections_are_waited_for() {
    scenario(|system| {
        let pods = three_served(system)?;
        let half_open = HalfOpen::begin(&system.topology, &pods[0], 3)?;
        let mut old = system.start_successor()?;
        send_signal(old.parent_pid(), Signal::SIGTERM)?;
        // Longer than the time for which the old agent accepts in any case.
        thread::sleep(Duration::from_secs(3));
        let sockets = half_open.release(&system.topology, &pods[0])?;
        let whole = sockets.into_iter().map(|socket| Connection::finish(socket, PATIENCE).context("the handshake"));
        let mut connections = whole.collect::<Result<Vec<_>>>()?;
        // They are complete, and have sent nothing, when the old agent's worker is asked to stop.
        old.daemon.wait_log("stopping: no new connections")?;
        for connection in &mut connections {
            connection.send("GET", ROLES, &[])?;
        }
        for mut connection in connections {
            let answer = connection.answer()?;
            ensure!(answer.text() == "reader", "{answer:?}");
        }
        ensure!(old.daemon.wait(SOON)?.success(), "the old agent's exit code");
        Ok(())
    });
}

/// A request in flight is answered by the agent that received it.
#[test]
fn request_in_flight_is_answered_by_the_old_agent() {
    scenario(|system| {
        let pods = three_served(system)?;
        let mut connections = Pod::new(&pods[0])
            .run(|| BOTH.into_iter().map(|imds| Connection::open(imds, None, PATIENCE)).collect::<Result<Vec<_>>>())?;
        for connection in &mut connections {
            connection.token(&[])?;
            // The end of the head follows later.
            connection.send_raw(format!("GET {ROLES} HTTP/1.1\r\nHost: m\r\n").as_bytes())?;
        }
        let mut old = system.start_successor()?;
        send_signal(old.parent_pid(), Signal::SIGTERM)?;
        for connection in &mut connections {
            connection.send_raw(b"\r\n")?;
            let answer = connection.answer()?;
            ensure!(answer.text() == "reader", "{answer:?}");
        }
        ensure!(old.daemon.wait(SOON)?.success(), "the old agent's exit code");
        Ok(())
    });
}

/// The agent in standby serves again when the other one is killed.
#[test]
fn standby_agent_serves_again_after_a_kill() {
    scenario(|system| {
        let pods = three_served(system)?;
        let mut successor = system.spawn_successor(&[])?;
        successor.wait_ready()?;
        let mut old = system.agent.take().context("the old agent")?;
        old.daemon.wait_log("standing by")?;
        let health = old.health()?;
        ensure!(health.status.success() && health.stdout.starts_with(b"ok    stand-by"), "{health:?}");
        let ((), tally) = load::during(&clients(&pods), system, |_| {
            successor.kill_both()?;
            old.daemon.wait_log("serving again")?;
            old.wait_ready()
        })?;
        // Its accepted connections end with it; a client that connects while no agent listens is served a second later.
        tally.expect_cut_at_most(2 * 6)?;
        let Tally { served, .. } = tally;
        ensure!(served > 0, "no request was served");
        system.agent = Some(old);
        system.upgrade()?;
        expect_role(&pods[1], "writer")
    });
}

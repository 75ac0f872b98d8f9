//! The agent's processes die, one or both, and come back. What pods get meanwhile is nothing, or a 503; above all it is
//! not the node role.

use crate::support::{expect_identity, expect_nothing, expect_role, knock};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, M4, PATIENCE, Pod, ROLES, Reply},
    eventually::eventually,
    node::topology::PodNetwork,
    system::{SOON, System, scenario},
};
use nix::sys::signal::Signal;
use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// What a client of AWS waits for one answer.
const FAST: Duration = Duration::from_secs(1);

/// A system with a served pod.
fn served(system: &mut System) -> Result<PodNetwork> {
    let pod = system.add_pod(1, "reader")?;
    system.start()?;
    system.wait_for_role(&pod, M4, "reader")?;
    Ok(pod)
}

fn expect_served_again(system: &mut System, pod: &PodNetwork) -> Result<()> {
    system.start_agent()?;
    system.wait_for_role(pod, M4, "reader")?;
    expect_role(pod, "reader")?;
    BOTH.into_iter().try_for_each(|m| expect_identity(system, pod, m, "reader"))
}

#[test]
fn the_parent_is_killed_and_pods_get_nothing() {
    scenario(|system| {
        let pod = served(system)?;
        system.agent()?.kill_parent()?;
        expect_nothing(system, &pod)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn the_parents_death_ends_a_worker_that_hangs() {
    scenario(|system| {
        let pod = served(system)?;
        kiam_tests::node::process::freeze(system.agent()?.worker_pid()?)?;
        // It cannot see that its parent is gone: the kernel must end it, or it would hold the sockets for good.
        system.agent()?.kill_parent()?;
        expect_nothing(system, &pod)?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn both_are_killed_and_pods_get_nothing() {
    scenario(|system| {
        let pod = served(system)?;
        system.agent()?.kill_both()?;
        expect_nothing(system, &pod)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn the_agent_is_stopped_and_pods_get_nothing() {
    scenario(|system| {
        let pod = served(system)?;
        let status = system.agent()?.stop()?;
        ensure!(status.success(), "a stop that was asked for: {}", kiam_tests::node::process::describe(status));
        expect_nothing(system, &pod)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn an_agent_that_finishes_its_requests_tells_others_to_ask_again() {
    scenario(|system| {
        let pod = served(system)?;
        let unfinished = Pod::new(&pod).run(|| {
            let mut connection = Connection::open(M4, None, PATIENCE)?;
            // The worker waits for the rest of the head, for two seconds.
            connection.send_raw(b"GET ")?;
            Ok(connection)
        })?;
        system.agent()?.daemon.signal(Signal::SIGTERM)?;
        system.agent()?.daemon.wait_log("stopping: no new connections")?;
        for m in BOTH {
            let reply = Pod::new(&pod).attempt(m, ROLES, FAST)?;
            let answer = reply.answer().with_context(|| format!("{reply:?} at {m}"))?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
        }
        drop(unfinished);
        ensure!(system.agent()?.daemon.wait(SOON)?.success(), "a stop that was asked for");
        Ok(())
    });
}

#[test]
fn without_a_worker_each_of_twenty_clients_gets_a_fast_503_with_its_body() {
    scenario(|system| {
        let pod = served(system)?;
        for m in BOTH {
            system.agent()?.crash_worker_until_paused(FAST)?;
            for (answer, took) in twenty_at_once(&pod, m)? {
                let answer = answer.answer().cloned().with_context(|| format!("{answer:?} after {took:?}"))?;
                ensure!(answer.status == 503 && !answer.body.is_empty(), "{answer:?}");
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
                ensure!(took < FAST, "after {took:?}");
            }
            ensure!(system.agent()?.worker_pid().is_err(), "a worker ran again meanwhile: the case was not there");
            eventually("the parent starts a worker again", SOON, || system.agent()?.worker_pid().map(drop))?;
            system.wait_for_role(&pod, m, "reader")?;
        }
        expect_identity(system, &pod, M4, "reader")
    });
}

/// Twenty requests on connections of their own, at the same time.
fn twenty_at_once(pod: &PodNetwork, m: IpAddr) -> Result<Vec<(Reply, Duration)>> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(move || {
                    let start = Instant::now();
                    Pod::new(pod).attempt(m, ROLES, PATIENCE).map(|reply| (reply, start.elapsed()))
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().ok().context("a client panicked")?).collect()
    })
}

#[test]
fn a_killed_worker_is_started_again_and_serves() {
    scenario(|system| {
        let pod = served(system)?;
        let first = system.agent()?.worker_pid()?;
        system.agent()?.kill_worker()?;
        system.agent()?.wait_for_worker_after(first)?;
        system.agent()?.wait_ready()?;
        system.wait_for_role(&pod, M4, "reader")?;
        expect_role(&pod, "reader")
    });
}

#[test]
fn a_frozen_worker_is_replaced() {
    scenario(|system| {
        let pod = served(system)?;
        let frozen = system.agent()?.worker_pid()?;
        kiam_tests::node::process::send_signal(frozen, Signal::SIGSTOP)?;
        // The parent hears no heartbeat for ten seconds before it acts.
        system.agent()?.wait_for_worker_after(frozen)?;
        system.wait_for_role(&pod, M4, "reader")
    });
}

//! Crashes of the agent's processes, one or both, and their restart. Meanwhile pods get no answer or a 503, and never
//! the node role.

use crate::support::{expect_identity, expect_nothing, expect_role, knock};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES, Reply},
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

/// Timeout of an AWS client for one answer.
const FAST: Duration = Duration::from_secs(1);

fn expect_served_again(system: &mut System, pod: &PodNetwork) -> Result<()> {
    system.start_agent()?;
    system.wait_for_role(pod, IMDS4, "reader")?;
    expect_role(pod, "reader")?;
    BOTH.into_iter().try_for_each(|imds| expect_identity(system, pod, imds, "reader"))
}

#[test]
fn the_parent_is_killed_and_pods_get_nothing() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        system.agent()?.kill_parent()?;
        expect_nothing(system, &pod)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn death_of_the_parent_ends_a_hanging_worker() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        kiam_tests::node::process::freeze(system.agent()?.worker_pid()?)?;
        // The worker cannot see that its parent is gone: the kernel must end it, or it would hold the sockets forever.
        system.agent()?.kill_parent()?;
        expect_nothing(system, &pod)?;
        expect_served_again(system, &pod)
    });
}

#[test]
fn both_are_killed_and_pods_get_nothing() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
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
        let pod = system.serving_pod("reader")?;
        let status = system.agent()?.stop()?;
        ensure!(status.success(), "a requested stop: {}", kiam_tests::node::process::describe(status));
        expect_nothing(system, &pod)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_served_again(system, &pod)
    });
}

/// An agent that drains answers new requests with 503.
#[test]
fn draining_agent_answers_with_503() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let unfinished = Pod::new(&pod).run(|| {
            let mut connection = Connection::open(IMDS4, None, PATIENCE)?;
            // The answer shows that the worker has accepted the connection; otherwise the parent would answer it, and the
            // worker would have nothing to finish.
            connection.token(&[])?;
            // The worker waits two seconds for the rest of the head.
            connection.send_raw(b"GET ")?;
            Ok(connection)
        })?;
        system.agent()?.daemon.signal(Signal::SIGTERM)?;
        system.agent()?.daemon.wait_log("stopping: no new connections")?;
        for imds in BOTH {
            let reply = Pod::new(&pod).attempt(imds, ROLES, FAST)?;
            let answer = reply.answer().with_context(|| format!("{reply:?} at {imds}"))?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
        }
        drop(unfinished);
        ensure!(system.agent()?.daemon.wait(SOON)?.success(), "a requested stop");
        Ok(())
    });
}

/// Without a worker each of twenty clients gets a fast 503 with its body.
#[test]
fn clients_get_a_fast_503_without_a_worker() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for imds in BOTH {
            system.agent()?.crash_worker_until_paused(FAST)?;
            for (answer, took) in twenty_at_once(&pod, imds)? {
                let answer = answer.answer().cloned().with_context(|| format!("{answer:?} after {took:?}"))?;
                ensure!(answer.status == 503 && !answer.body.is_empty(), "{answer:?}");
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
                ensure!(took < FAST, "after {took:?}");
            }
            ensure!(
                system.agent()?.worker_pid().is_err(),
                "a worker ran in the meantime: the test's precondition is not met"
            );
            eventually("the parent starts a worker again", SOON, || system.agent()?.worker_pid().map(drop))?;
            system.wait_for_role(&pod, imds, "reader")?;
        }
        expect_identity(system, &pod, IMDS4, "reader")
    });
}

/// Sends twenty requests at the same time, each on a new connection.
fn twenty_at_once(pod: &PodNetwork, imds: IpAddr) -> Result<Vec<(Reply, Duration)>> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(move || {
                    let start = Instant::now();
                    Pod::new(pod).attempt(imds, ROLES, PATIENCE).map(|reply| (reply, start.elapsed()))
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().ok().context("a client panicked")?).collect()
    })
}

#[test]
fn killed_worker_is_restarted_and_serves() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let first = system.agent()?.worker_pid()?;
        system.agent()?.kill_worker()?;
        system.agent()?.wait_for_worker_after(first)?;
        system.agent()?.wait_ready()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_role(&pod, "reader")
    });
}

#[test]
fn a_frozen_worker_is_replaced() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let frozen = system.agent()?.worker_pid()?;
        kiam_tests::node::process::send_signal(frozen, Signal::SIGSTOP)?;
        // The parent misses the heartbeat for ten seconds before it acts.
        system.agent()?.wait_for_worker_after(frozen)?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

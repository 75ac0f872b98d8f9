//! An agent is stopped while pods send requests. Requests that have begun are answered, by the worker or by the parent;
//! later ones get no answer.

use crate::support::expect_nothing;
use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    clients::{Answer, BOTH, Connection, PATIENCE, Pod, ROLES, Reply, VAIN},
    node::{process::send_signal, topology::PodNetwork},
    system::{SOON, System, scenario},
};
use nix::sys::signal::Signal;
use std::{net::IpAddr, thread, time::Duration};

/// Time that clients send requests before the agent is stopped.
const WARM_UP: Duration = Duration::from_millis(200);

fn expect_ended(system: &mut System, pod: &PodNetwork) -> Result<()> {
    ensure!(system.agent()?.daemon.wait(SOON)?.success(), "the exit code after SIGTERM");
    expect_nothing(system, pod)
}

fn expect_last_answer(answer: &Answer) -> Result<()> {
    ensure!(answer.status == 200 && answer.text() == "reader", "{answer:?}");
    ensure!(answer.header("connection") == Some("close"), "{answer:?}");
    Ok(())
}

/// A head that arrives half before and half after the stop is answered: as the first request of a connection, and as a
/// later one.
#[test]
fn head_split_by_the_stop_is_answered() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let mut connections = Pod::new(&pod).run(|| {
            let mut connections = Vec::new();
            for imds in BOTH {
                connections.push(Connection::open(imds, None, PATIENCE)?);
                // This later connection gets an answer, so both have been accepted.
                let mut kept = Connection::open(imds, None, PATIENCE)?;
                kept.send("GET", ROLES, &[])?;
                ensure!(kept.answer()?.status == 200, "a first request");
                connections.push(kept);
            }
            Ok(connections)
        })?;
        let head = format!("GET {ROLES} HTTP/1.1\r\nHost: imds\r\n\r\n");
        let (first, second) = head.split_at(head.len() / 2);
        for connection in &mut connections {
            connection.send_raw(first.as_bytes())?;
        }
        system.agent()?.daemon.signal(Signal::SIGTERM)?;
        system.agent()?.daemon.wait_log("stopping: no new connections")?;
        for connection in &mut connections {
            connection.send_raw(second.as_bytes())?;
        }
        for connection in &mut connections {
            expect_last_answer(&connection.answer()?)?;
        }
        drop(connections);
        expect_ended(system, &pod)
    });
}

/// Clients whose connections no worker has accepted are answered by the parent before it ends.
#[test]
fn parent_answers_its_accept_queue_before_it_ends() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let agent = system.agent()?;
        let worker = agent.worker_pid()?;
        agent.freeze_both()?;
        let mut waiting = Pod::new(&pod).run(|| {
            let connect = |n: usize| {
                let mut connection = Connection::open(BOTH[n % BOTH.len()], None, PATIENCE)?;
                // Half a head is enough: this answer needs no whole request.
                connection.send_raw(b"GET ")?;
                Ok(connection)
            };
            (0..20).map(connect).collect::<Result<Vec<_>>>()
        })?;
        send_signal(agent.parent_pid(), Signal::SIGTERM)?;
        send_signal(worker, Signal::SIGKILL)?;
        agent.thaw_parent()?;
        for connection in &mut waiting {
            let answer = connection.answer()?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
        }
        drop(waiting);
        expect_ended(system, &pod)
    });
}

/// Clients open one connection after another until the agent has ended: each connection that the kernel has established
/// is answered, up to the last one.
#[test]
fn stop_cuts_off_no_established_connection() {
    scenario(|system| {
        let pod = &system.serving_pod("reader")?;
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..4).map(|n| scope.spawn(move || request_until_silence(pod, BOTH[n % 2]))).collect();
            thread::sleep(WARM_UP);
            system.agent()?.daemon.signal(Signal::SIGTERM)?;
            for client in clients {
                let answered = client.join().ok().context("a client panicked")??;
                ensure!(answered > 0, "a client was never answered");
            }
            expect_ended(system, pod)
        })
    });
}

/// Sends a request on one connection after another until no connection can be opened. Returns the number of answers.
fn request_until_silence(pod: &PodNetwork, imds: IpAddr) -> Result<u32> {
    Pod::new(pod).run(|| {
        let mut answered = 0;
        loop {
            let mut connection = match Connection::open(imds, None, VAIN) {
                Ok(connection) => connection,
                Err(error) => match Reply::of(&error) {
                    Reply::Silent => return Ok(answered),
                    other => bail!("after {answered} answers a connection could not be opened: {other:?}"),
                },
            };
            let reply = connection.send("GET", ROLES, &[]).and_then(|()| connection.answer());
            let answer = reply.with_context(|| format!("after {answered} answers a connection was cut off"))?;
            ensure!(matches!(answer.status, 200 | 503), "{answer:?}");
            answered += 1;
        }
    })
}

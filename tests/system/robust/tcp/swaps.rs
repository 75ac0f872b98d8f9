//! One agent takes over from another on a node, as in an update of the DaemonSet: the new one starts next to the old
//! one, with the same pins and folder, and puts its listening sockets into the slots. The old one serves until nothing
//! can reach its own sockets any longer, and is asked to stop.

use crate::support::{sockets_in, tcp_counter};
use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    clients::{Answer, BOTH, Connection, HalfOpen, Pod, ROLES, Reply},
    node::{process::describe, topology::PodNetwork},
    system::{Agent, System, scenario},
};
use std::{
    iter::repeat_n,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Takeovers under load.
const SWAPS: usize = 20;
/// Minimum number of requests that are served in the meantime, over each family.
const REQUESTS: usize = 500;
/// Connections over each family that are half-open during a takeover.
const HALF_OPEN: usize = 5;
/// Connections of each kind over each family in the test of SYN cookies.
const WITH_COOKIES: usize = 30;
/// Time for which the old agent continues once the new one is ready: a lost SYN-ACK is retransmitted after a second
/// (RFC 6298).
const OVERLAP: Duration = Duration::from_secs(1);
/// Timeout of an AWS client for a connection and for an answer.
const FAST: Duration = Duration::from_secs(1);

/// Starts a system with some pods that are served.
fn serving<const PODS: usize>(system: &mut System) -> Result<[PodNetwork; PODS]> {
    system.agent_flags.push("--level=info".to_owned());
    system.serving_pods(["reader"; PODS])
}

/// Lets the old agent continue for a while, then stops it.
fn retire(mut old: Agent) -> Result<()> {
    thread::sleep(OVERLAP);
    let status = old.stop()?;
    ensure!(status.success(), "the old agent's end: {}", describe(status));
    Ok(())
}

/// Sends a request over an open connection, and asserts that it is served.
fn expect_served(connection: &mut Connection) -> Result<()> {
    connection.send("GET", ROLES, &[])?;
    let answer = connection.answer()?;
    ensure!(is_role(&answer), "{answer:?}");
    Ok(())
}

fn is_role(answer: &Answer) -> bool {
    answer.status == 200 && answer.text() == "reader"
}

/// Returns whether the parent has answered because its worker is still starting.
fn is_postponed(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after").is_some()
}

/// Requests the role list repeatedly, each time over a new connection. Each request must be answered within a client's
/// timeout, with the role or with a request to retry.
fn request_until(done: &AtomicBool, pod: &PodNetwork, imds: IpAddr) -> Result<()> {
    let (mut roles, mut postponed) = (0, 0);
    while !done.load(Relaxed) || roles < REQUESTS {
        let begin = Instant::now();
        match Pod::new(pod).attempt(imds, ROLES, FAST)? {
            Reply::Answer(answer) if is_role(&answer) => roles += 1,
            Reply::Answer(answer) if is_postponed(&answer) => postponed += 1,
            reply => {
                bail!(
                    "at {imds}, after {roles} roles and {postponed} postponements: {reply:?} in {:?}",
                    begin.elapsed()
                )
            }
        }
    }
    Ok(())
}

/// Lets a new agent take over while connections are half-open: the old one has their SYNs, and serves them.
fn take_over(system: &mut System, pod: &PodNetwork) -> Result<()> {
    let half_open = HalfOpen::begin(&system.topology, pod, HALF_OPEN)?;
    let waiting = sockets_in(&system.topology.node, "syn-recv")?;
    ensure!(waiting >= BOTH.len() * HALF_OPEN, "only {waiting} are half-open: the test's precondition is not met");
    let old = system.start_successor()?;
    for socket in half_open.release(&system.topology, pod)? {
        let answered = Connection::finish(socket, FAST).and_then(|mut connection| expect_served(&mut connection));
        answered.context("half-open at the takeover")?;
    }
    retire(old)
}

/// No request is lost while agents take over from each other.
#[test]
fn no_request_is_lost_during_takeovers() {
    scenario(|system| {
        let [busy, late] = serving(system)?;
        let (done, busy) = (&AtomicBool::new(false), &busy);
        thread::scope(|scope| {
            let clients = BOTH.map(|imds| scope.spawn(move || request_until(done, busy, imds)));
            let swapped = (1..=SWAPS)
                .try_for_each(|number| take_over(system, &late).with_context(|| format!("takeover {number}")));
            done.store(true, Relaxed);
            for client in clients {
                client.join().ok().context("a client panicked")??;
            }
            swapped
        })
    });
}

/// No connection is lost in a takeover with forced SYN cookies. With a cookie the listening socket keeps no state of a
/// connection before its last acknowledgement, and a socket that has sent no cookie yet accepts none. The new agent's
/// own probe makes its socket send the first one before the agent is ready: from then on it accepts the cookies of the
/// old one.
#[test]
fn takeover_with_forced_syn_cookies_loses_nothing() {
    scenario(|system| {
        let [pod, late] = serving(system)?;
        system.topology.node.sysctl("net.ipv4.tcp_syncookies", "2")?;
        let mut established = connect(&pod)?;
        expect_all_served(&mut established)?;
        let given = tcp_counter(&system.topology.node, "SyncookiesSent")?;
        let half_open = HalfOpen::begin(&system.topology, &late, WITH_COOKIES)?;
        let given = tcp_counter(&system.topology.node, "SyncookiesSent")? - given;
        // The old agent's probe may have received some as well.
        ensure!(
            given >= u64::try_from(BOTH.len() * WITH_COOKIES)?,
            "only {given} cookies were sent: the test's precondition is not met"
        );

        let old = system.start_successor()?;
        expect_all_served(&mut established).context("established before the takeover")?;
        let half_open = half_open.release(&system.topology, &late)?;
        let finish = |socket| Connection::finish(socket, FAST);
        let mut half_open = half_open.into_iter().map(finish).collect::<Result<Vec<_>>>()?;
        expect_all_served(&mut half_open).context("half-open at the takeover")?;
        expect_all_served(&mut connect(&pod)?).context("begun after the takeover")?;
        retire(old)?;
        expect_all_served(&mut connect(&late)?).context("begun after the old agent's end")
    });
}

/// Opens connections over each family.
fn connect(pod: &PodNetwork) -> Result<Vec<Connection>> {
    let all = BOTH.into_iter().flat_map(|imds| repeat_n(imds, WITH_COOKIES));
    Pod::new(pod).run(|| all.map(|imds| Connection::open(imds, None, FAST)).collect())
}

fn expect_all_served(connections: &mut [Connection]) -> Result<()> {
    connections.iter_mut().try_for_each(expect_served)
}

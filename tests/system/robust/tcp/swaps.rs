//! One agent takes over from another on a node, as in an update of the DaemonSet: the new one starts beside the old one,
//! on the same pins and folder, and puts its listening sockets into the slots; the old one goes on until nothing can
//! reach its own any more, and is told to stop.

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

/// How often one agent takes over from another under load.
const SWAPS: usize = 20;
/// Fewest requests that are served meanwhile, over each family.
const REQUESTS: usize = 500;
/// Connections over each family that are half-open while a new agent takes over.
const HALF_OPEN: usize = 5;
/// Connections of each kind over each family where SYN cookies are tried.
const WITH_COOKIES: usize = 30;
/// How long the old agent goes on once the new one is ready: a lost SYN-ACK is sent again after a second (RFC 6298).
const OVERLAP: Duration = Duration::from_secs(1);
/// What a client of AWS waits for a connection, and for an answer.
const FAST: Duration = Duration::from_secs(1);

/// Some pods, served.
fn serving<const PODS: usize>(system: &mut System) -> Result<[PodNetwork; PODS]> {
    system.agent_flags.push("--level=info".to_owned());
    system.serving_pods(["reader"; PODS])
}

/// The old agent goes on for a while, and is told to stop.
fn retire(mut old: Agent) -> Result<()> {
    thread::sleep(OVERLAP);
    let status = old.stop()?;
    ensure!(status.success(), "the old agent's end: {}", describe(status));
    Ok(())
}

/// A request over a connection that is open already.
fn expect_served(connection: &mut Connection) -> Result<()> {
    connection.send("GET", ROLES, &[])?;
    let answer = connection.answer()?;
    ensure!(is_role(&answer), "{answer:?}");
    Ok(())
}

fn is_role(answer: &Answer) -> bool {
    answer.status == 200 && answer.text() == "reader"
}

/// The parent's answer while its worker starts: ask again in a second.
fn is_postponed(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after").is_some()
}

/// Asks for the role list again and again, each time over a new connection. Each request is answered in a client's
/// time: with the role, or that it is to be asked for again.
fn ask_until(done: &AtomicBool, pod: &PodNetwork, imds: IpAddr) -> Result<()> {
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

/// A new agent takes over while connections are half-open: the old one has their SYNs, and serves them.
fn take_over(system: &mut System, pod: &PodNetwork) -> Result<()> {
    let half_open = HalfOpen::begin(&system.topology, pod, HALF_OPEN)?;
    let waiting = sockets_in(&system.topology.node, "syn-recv")?;
    ensure!(waiting >= BOTH.len() * HALF_OPEN, "only {waiting} are half-open: the case is not there");
    let old = system.start_agent_beside()?;
    for socket in half_open.release(&system.topology, pod)? {
        let answered = Connection::finish(socket, FAST).and_then(|mut connection| expect_served(&mut connection));
        answered.context("half-open at the take-over")?;
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
            let clients = BOTH.map(|imds| scope.spawn(move || ask_until(done, busy, imds)));
            let swapped = (1..=SWAPS)
                .try_for_each(|number| take_over(system, &late).with_context(|| format!("take-over {number}")));
            done.store(true, Relaxed);
            for client in clients {
                client.join().ok().context("a client panicked")??;
            }
            swapped
        })
    });
}

/// With a SYN cookie the listening socket remembers nothing of a connection before its last acknowledgement, and one
/// that has given no cookie yet takes none. The new agent's own probe gets the first one from its socket, before it is
/// ready: from then on it takes those that the old one gave.
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
        // The old agent's probe may have got some as well.
        ensure!(
            given >= u64::try_from(BOTH.len() * WITH_COOKIES)?,
            "only {given} cookies were given: the case is not there"
        );

        let old = system.start_agent_beside()?;
        expect_all_served(&mut established).context("established before the take-over")?;
        let half_open = half_open.release(&system.topology, &late)?;
        let finish = |socket| Connection::finish(socket, FAST);
        let mut half_open = half_open.into_iter().map(finish).collect::<Result<Vec<_>>>()?;
        expect_all_served(&mut half_open).context("half-open at the take-over")?;
        expect_all_served(&mut connect(&pod)?).context("begun after the take-over")?;
        retire(old)?;
        expect_all_served(&mut connect(&late)?).context("begun after the old agent's end")
    });
}

/// New connections over each family.
fn connect(pod: &PodNetwork) -> Result<Vec<Connection>> {
    let all = BOTH.into_iter().flat_map(|imds| repeat_n(imds, WITH_COOKIES));
    Pod::new(pod).run(|| all.map(|imds| Connection::open(imds, None, FAST)).collect())
}

fn expect_all_served(connections: &mut [Connection]) -> Result<()> {
    connections.iter_mut().try_for_each(expect_served)
}

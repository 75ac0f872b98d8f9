//! Outcome of a connection in each of its states when the agent is killed, and of a SYN that arrives while no agent
//! listens.

use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES, Reply, VAIN},
    node::{process::send_signal, topology::PodNetwork},
    system::{System, scenario},
};
use nix::sys::signal::Signal;
use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// Connections of each kind.
const CONNECTIONS: usize = 50;
/// Crashes of a worker under load.
const CRASHES: usize = 5;
/// Time in which a killed process's connections end, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Kills the agent and returns the outcomes of these connections.
fn kill_and_watch(system: &mut System, open: Vec<Connection>) -> Result<Vec<Reply>> {
    system.agent()?.kill_both()?;
    let killed = Instant::now();
    let replies = open.into_iter().map(Connection::end).collect();
    ensure!(killed.elapsed() < AT_ONCE, "after {:?}", killed.elapsed());
    system.expect_no_leak()?;
    Ok(replies)
}

fn connect(pod: &PodNetwork, imds: IpAddr, count: usize) -> Result<Vec<Connection>> {
    Pod::new(pod).run(|| (0..count).map(|_| Connection::open(imds, None, PATIENCE)).collect())
}

#[test]
fn idle_connections_end_when_the_agent_is_killed() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for imds in BOTH {
            let mut open = connect(&pod, imds, CONNECTIONS)?;
            for connection in &mut open {
                connection.token(&[])?;
            }
            for reply in kill_and_watch(system, open)? {
                ensure!(reply == Reply::Closed, "{reply:?} at {imds}");
            }
            system.start_agent()?;
            system.wait_for_role(&pod, imds, "reader")?;
        }
        Ok(())
    });
}

/// Connections in the accept queue are reset when the agent is killed.
#[test]
fn accept_queue_is_reset_when_the_agent_is_killed() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for imds in BOTH {
            // Neither process accepts: new connections wait in the queue.
            system.agent()?.freeze_both()?;
            let open = connect(&pod, imds, CONNECTIONS)?;
            for reply in kill_and_watch(system, open)? {
                ensure!(reply == Reply::Reset, "{reply:?} at {imds}");
            }
            system.start_agent()?;
            system.wait_for_role(&pod, imds, "reader")?;
        }
        Ok(())
    });
}

#[test]
fn requests_in_flight_end_when_the_agent_is_killed() {
    scenario(|system| {
        let _pod = system.serving_pod("reader")?;
        // The pod is unknown: its requests wait in the server for up to 900 ms.
        let unknown = system.topology.add_pod(2)?;
        for imds in BOTH {
            let mut open = connect(&unknown, imds, CONNECTIONS)?;
            for connection in &mut open {
                connection.send("GET", ROLES, &[])?;
            }
            for reply in kill_and_watch(system, open)? {
                ensure!([Reply::Reset, Reply::Closed].contains(&reply), "{reply:?} at {imds}");
            }
            system.start_agent()?;
        }
        Ok(())
    });
}

/// A SYN that arrives without an agent is served once an agent listens.
#[test]
fn syn_without_an_agent_is_served_once_one_listens() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for imds in BOTH {
            system.agent()?.kill_both()?;
            let begun =
                Pod::new(&pod).run(|| (0..10).map(|_| Connection::begin(imds, None)).collect::<Result<Vec<_>>>())?;
            thread::sleep(Duration::from_millis(100));
            for socket in &begun {
                ensure!(socket.take_error()?.is_none(), "a SYN without an agent was answered, at {imds}");
            }
            system.expect_no_leak()?;
            system.start_agent()?;
            for socket in begun {
                let mut connection = Connection::finish(socket, PATIENCE).context("the SYN is retransmitted")?;
                connection.send("GET", ROLES, &[])?;
                let answer = connection.answer()?;
                ensure!([200, 503].contains(&answer.status), "{answer:?}");
            }
            system.wait_for_role(&pod, imds, "reader")?;
        }
        Ok(())
    });
}

/// After the agent is killed, new connections get no answer over either family.
#[test]
fn killed_agent_is_silent_to_new_connections() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        system.agent()?.kill_both()?;
        // The program drops packets without a listener, so that IPv6 is as silent as IPv4.
        crate::support::expect_reply(system, &pod, [&[Reply::Silent], &[Reply::Silent]])
    });
}

/// With the fence alone, IPv4 connections get no answer; IPv6 ones may be refused.
#[test]
fn fence_alone_is_silent_or_refuses() {
    scenario(|system| {
        let _pod = system.serving_pod("reader")?;
        system.agent()?.kill_both()?;
        let new = system.topology.add_pod(2)?;
        // The kernel sends resets from the IMDS address over IPv6 only: over IPv4 they would leave by a transparent
        // socket.
        crate::support::expect_reply(system, &new, [&[Reply::Silent], &[Reply::Refused, Reply::Silent]])
    });
}

#[test]
fn no_connection_is_refused_while_workers_crash() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let replies = thread::scope(|scope| -> Result<Vec<Reply>> {
            let clients = scope.spawn(|| {
                let mut replies = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || replies.len() < 500 {
                    for imds in BOTH {
                        replies.push(Pod::new(&pod).attempt(imds, ROLES, VAIN)?);
                    }
                }
                Ok::<_, anyhow::Error>(replies)
            });
            let mut crashes = || -> Result<()> {
                let mut worker = system.agent()?.worker_pid()?;
                for _ in 0..CRASHES {
                    send_signal(worker, Signal::SIGKILL)?;
                    worker = system.agent()?.wait_for_worker_after(worker)?;
                }
                Ok(())
            };
            let crashed = crashes();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let replies = clients.join().ok().context("the clients panicked")?;
            crashed.and(replies)
        })?;
        // The parent holds the listener as well: a crash costs at most the requests that the worker had accepted.
        let lost = replies.iter().filter(|reply| matches!(reply, Reply::Reset | Reply::Closed)).count();
        let bad = replies.iter().find(|reply| !matches!(reply, Reply::Answer(_) | Reply::Reset | Reply::Closed));
        ensure!(bad.is_none(), "{bad:?}");
        ensure!(lost <= 2 * CRASHES, "{lost} of {} requests were lost by {CRASHES} crashes", replies.len());
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

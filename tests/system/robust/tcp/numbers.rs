//! Large numbers of connections: one after another, all at once, and one for many requests. Most request a session
//! token, which the agent answers by itself, because the test is about its sockets and not the server.

use crate::support::sockets_in;
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, PATIENCE, Pod, ROLES},
    eventually::eventually,
    system::{SOON, scenario},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Connections one after another, for each family.
const IN_SEQUENCE: usize = 20_000;
/// Interval of requests for the role, which would reveal a confusion of pods.
const ROLE_EVERY: usize = 20;
/// Path of session tokens, and the header of each request for one.
const TOKEN: &str = "/latest/api/token";
/// See [`TOKEN`].
const TTL: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");
/// Pods that connect at once, and connections of each: 1,000 in all, below the agent's limit for one pod.
const PODS: usize = 20;
/// See [`PODS`].
const CONNECTIONS_EACH: usize = 50;
/// File descriptors for them and the rest of this process: a login shell has 1,024.
const DESCRIPTORS: u64 = 4_096;
/// Maximum time of a connection: far less than a retransmission of its SYN, which takes a second.
const CONNECT_MAX: Duration = Duration::from_millis(900);

fn connect_fast(imds: IpAddr) -> Result<Connection> {
    let start = Instant::now();
    let connection = Connection::open(imds, None, PATIENCE)?;
    ensure!(start.elapsed() < CONNECT_MAX, "a connection at {imds} took {:?}: a SYN was lost", start.elapsed());
    Ok(connection)
}

#[test]
fn twenty_thousand_connections_one_after_another() {
    scenario(|system| {
        system.agent_flags.push("--level=warn".to_owned());
        system.server_flags.push("--level=warn".to_owned());
        let pod = system.serving_pod("reader")?;
        // The pod's ends stay for a minute each, and searching among too few free ports takes longer than a connection.
        pod.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        for imds in BOTH {
            Pod::new(&pod).run(|| {
                for number in 0..IN_SEQUENCE {
                    let mut connection = connect_fast(imds)?;
                    if number % ROLE_EVERY == 0 {
                        connection.send("GET", ROLES, &[])?;
                        let answer = connection.answer()?;
                        ensure!(
                            answer.status == 200 && answer.text() == "reader",
                            "number {number} at {imds}: {answer:?}"
                        );
                    } else {
                        connection.token(&[]).with_context(|| format!("number {number} at {imds}"))?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_thousand_connections_at_once() {
    scenario(|system| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(DESCRIPTORS), hard)?;
        system.agent_flags.push("--level=warn".to_owned());
        let pods = system.serving_pods(["reader"; PODS])?;
        for imds in BOTH {
            // Neither process accepts: all connections are in the queue at the same time.
            system.agent()?.freeze_both()?;
            let mut open = Vec::new();
            for pod in &pods {
                let connect = |_| connect_fast(imds).context("while no process accepts");
                open.extend(Pod::new(pod).run(|| (0..CONNECTIONS_EACH).map(connect).collect::<Result<Vec<_>>>())?);
            }
            system.agent()?.thaw_both()?;
            for connection in &mut open {
                connection.send("PUT", TOKEN, &[TTL])?;
            }
            for connection in &mut open {
                let answer = connection.answer()?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            drop(open);
            eventually("the agent has closed them", SOON, || {
                let closing = sockets_in(&system.topology.node, "close-wait")?;
                ensure!(closing == 0, "{closing} are still open");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn one_connection_carries_many_requests() {
    scenario(|system| {
        system.agent_flags.push("--level=warn".to_owned());
        let pod = system.serving_pod("reader")?;
        for imds in BOTH {
            Pod::new(&pod).run(|| {
                let mut connection = Connection::open(imds, None, PATIENCE)?;
                for _ in 0..1_000 {
                    connection.send("GET", ROLES, &[])?;
                    let answer = connection.answer()?;
                    ensure!(answer.status == 200 && answer.text() == "reader", "{answer:?}");
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}

//! TCP edge cases of a redirect by socket assignment: reused ports, late segments, forgotten connections, SYN cookies,
//! connections from before the install. Each case over IPv4 and IPv6.

use crate::support::{sockets_in, tcp_counter};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES, Reply, VAIN},
    eventually::eventually,
    node::{netns::Netns, process, topology::PodNetwork},
    system::{SOON, System, scenario},
};
use socket2::SockRef;
use std::{
    io,
    net::IpAddr,
    ops::Range,
    time::{Duration, Instant},
};

/// Source ports without other users: below the ephemeral ones.
const PORTS: Range<u16> = 20_000..20_060;
/// Maximum time for a connection over an old one: a SYN that is lost or answered wrongly is retransmitted after a
/// second.
const CONNECT_MAX: Duration = Duration::from_millis(900);

/// Sends a request that makes the agent close the connection.
fn request_and_be_closed(imds: IpAddr, port: u16) -> Result<Connection> {
    let mut connection = Connection::open(imds, Some(port), PATIENCE)?;
    connection.token(&[("Connection", "close")]).with_context(|| format!("port {port}"))?;
    Ok(connection)
}

/// Sends a request from a reused port; returns how long the connection took.
fn connect_again(imds: IpAddr, port: u16) -> Result<Duration> {
    let (mut connection, took) = eventually(&format!("port {port} again"), PATIENCE, || {
        let start = Instant::now();
        match Connection::open(imds, Some(port), PATIENCE) {
            // The pod's own end of the old connection waits for its last acknowledgement.
            Err(error) if is_port_in_use(&error) => Err(error),
            other => Ok((other, start.elapsed())),
        }
    })
    .and_then(|(connection, took)| Ok((connection.with_context(|| format!("port {port} again at {imds}"))?, took)))?;
    connection.token(&[]).with_context(|| format!("port {port} again at {imds}"))?;
    Ok(took)
}

fn is_port_in_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Reuses all of the ports, and asserts that each connection is fast.
fn expect_all_again(imds: IpAddr, ports: Range<u16>) -> Result<()> {
    for port in ports {
        let took = connect_again(imds, port)?;
        ensure!(took < CONNECT_MAX, "port {port} again at {imds} took {took:?}");
    }
    Ok(())
}

/// Returns the number of the node's connections that the agent has closed. The kernel keeps only what `ss` shows with a
/// TIME_WAIT timer, until the pod's FIN arrives.
fn waiting_for_a_fin(node: &Netns) -> Result<usize> {
    let sockets = process::run(node.command("ss").args(["-Htno", "state", "fin-wait-2", "sport", "=", ":80"]))?;
    Ok(sockets.lines().filter(|socket| socket.contains("timer:(timewait,")).count())
}

/// Connection between a pod and its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PodLink {
    Veth,
    Bridge,
}

impl PodLink {
    /// Adds a pod with the role `reader`.
    fn add_pod(self, system: &mut System) -> Result<PodNetwork> {
        if self == Self::Veth {
            return system.add_pod(1, "reader");
        }
        system.topology.add_bridge("cni0")?;
        let pod = system.topology.add_pod_on(1, "cni0")?;
        system.announce(&pod, "pod1", Some("reader"));
        system.agent_flags.push("--host-interface=cni0".to_owned());
        Ok(pod)
    }
}

fn serving(system: &mut System, link: PodLink) -> Result<PodNetwork> {
    system.agent_flags.push("--level=info".to_owned());
    let pod = link.add_pod(system)?;
    system.start()?;
    system.wait_for_role(&pod, IMDS4, "reader")?;
    Ok(pod)
}

fn a_time_wait_port_is_used_again(link: PodLink) {
    scenario(|system| {
        let pod = serving(system, link)?;
        for imds in BOTH {
            Pod::new(&pod).run(|| {
                for port in PORTS {
                    ensure!(request_and_be_closed(imds, port)?.end() == Reply::Closed, "the agent closes first");
                    let took = connect_again(imds, port)?;
                    ensure!(took < CONNECT_MAX, "port {port} again at {imds} took {took:?}");
                }
                Ok(())
            })?;
        }
        Ok(())
    });
}

fn a_time_wait_port_is_used_again_with_rfc1337(link: PodLink) {
    scenario(|system| {
        let pod = serving(system, link)?;
        system.topology.node.sysctl("net.ipv4.tcp_rfc1337", "1")?;
        for imds in BOTH {
            Pod::new(&pod).run(|| {
                for port in PORTS {
                    ensure!(request_and_be_closed(imds, port)?.end() == Reply::Closed, "the agent closes first");
                }
                expect_all_again(imds, PORTS)
            })?;
        }
        Ok(())
    });
}

fn a_late_fin_reaches_the_socket_that_waits_for_it(link: PodLink) {
    scenario(|system| {
        let pod = serving(system, link)?;
        let node = &system.topology.node;
        for imds in BOTH {
            let resets = tcp_counter(node, "OutRsts")?;
            let waiting_before = sockets_in(node, "time-wait")?;
            Pod::new(&pod).run(|| {
                let open: Vec<Connection> =
                    PORTS.map(|port| request_and_be_closed(imds, port)).collect::<Result<_>>()?;
                eventually("the agent has closed all of them", SOON, || {
                    let waiting = waiting_for_a_fin(node)?;
                    ensure!(waiting == PORTS.len(), "{waiting}");
                    Ok(())
                })?;
                // Now the pod's FINs arrive, late.
                drop(open);
                Ok(())
            })?;
            eventually("each FIN has reached its socket", SOON, || {
                let (waiting, done) =
                    (sockets_in(node, "fin-wait-2")?, sockets_in(node, "time-wait")? - waiting_before);
                ensure!(waiting == 0 && done == PORTS.len(), "{waiting} in FIN-WAIT-2, {done} in TIME-WAIT");
                Ok(())
            })?;
            let sent = tcp_counter(node, "OutRsts")? - resets;
            ensure!(sent == 0, "{sent} resets in answer to late FINs at {imds}");
            Pod::new(&pod).run(|| expect_all_again(imds, PORTS))?;
        }
        Ok(())
    });
}

fn a_syn_over_a_forgotten_connection_is_served(link: PodLink) {
    scenario(|system| {
        let pod = serving(system, link)?;
        for imds in BOTH {
            // An earlier connection may still be closing.
            eventually("all connections have ended", SOON, || {
                let established = sockets_in(&system.topology.node, "established")?;
                ensure!(established == 0, "{established} connections are established");
                Ok(())
            })?;
            Pod::new(&pod).run(|| {
                let mut open = Vec::new();
                for port in PORTS {
                    let mut connection = Connection::open(imds, Some(port), PATIENCE)?;
                    connection.token(&[])?;
                    open.push(connection);
                }
                // The pod's resets are dropped: the node's side of each connection stays.
                pod.ip(&format!("route add blackhole {imds}"))?;
                for connection in open {
                    SockRef::from(connection.stream()).set_linger(Some(Duration::ZERO))?;
                }
                pod.ip(&format!("route del blackhole {imds}"))?;
                Ok(())
            })?;
            let stale = sockets_in(&system.topology.node, "established")?;
            ensure!(
                stale == PORTS.len(),
                "only {stale} connections are stale at {imds}: the test's precondition is not met"
            );
            Pod::new(&pod).run(|| expect_all_again(imds, PORTS))?;
        }
        Ok(())
    });
}

fn connections_come_up_with_syn_cookies_forced(link: PodLink) {
    scenario(|system| {
        let pod = serving(system, link)?;
        system.topology.node.sysctl("net.ipv4.tcp_syncookies", "2")?;
        for imds in BOTH {
            Pod::new(&pod).run(|| {
                for _ in 0..3_000 {
                    let mut connection = Connection::open(imds, None, PATIENCE)?;
                    connection.token(&[])?;
                }
                for port in PORTS {
                    ensure!(request_and_be_closed(imds, port)?.end() == Reply::Closed, "the agent closes first");
                }
                expect_all_again(imds, PORTS)
            })?;
        }
        let cookies = tcp_counter(&system.topology.node, "SyncookiesRecv")?;
        ensure!(cookies >= 6_000, "only {cookies} connections used a cookie: the test's precondition is not met");
        Ok(())
    });
}

/// Opens connections to the real IMDS, before anything of ours is in the way.
fn open_before(pod: &PodNetwork, imds: IpAddr, count: usize) -> Result<Vec<Connection>> {
    Pod::new(pod).run(|| {
        let mut open = Vec::new();
        for _ in 0..count {
            let mut connection = Connection::open(imds, None, PATIENCE)?;
            connection.send("GET", ROLES, &[])?;
            ensure!(connection.answer()?.text() == kiam_tests::fakes::canary::NODE_ROLE);
            connection.stream().set_read_timeout(Some(VAIN))?;
            open.push(connection);
        }
        Ok(open)
    })
}

fn connections_opened_before_the_install_are_reset(link: PodLink) {
    scenario(|system| {
        let pod = link.add_pod(system)?;
        let mut open = Vec::new();
        for imds in BOTH {
            open.extend(open_before(&pod, imds, 50)?);
        }
        system.start()?;
        system.canary.settle(&system.topology.node)?;
        system.canary.forget();
        for mut connection in open {
            let start = Instant::now();
            connection.send("GET", ROLES, &[])?;
            let reply = connection.end();
            ensure!(reply == Reply::Reset, "{reply:?} after {:?}", start.elapsed());
            ensure!(start.elapsed() < CONNECT_MAX, "reset after {:?}", start.elapsed());
        }
        system.expect_no_leak()
    });
}

fn old_connections_are_silent_without_an_agent(link: PodLink) {
    scenario(|system| {
        let pod = link.add_pod(system)?;
        let mut open = [open_before(&pod, BOTH[0], 10)?, open_before(&pod, BOTH[1], 10)?];
        system.start()?;
        system.agent()?.kill_both()?;
        system.canary.settle(&system.topology.node)?;
        system.canary.forget();
        for connection in open.iter_mut().flatten() {
            connection.send("GET", ROLES, &[])?;
        }
        // All have been waiting since their request, so the timeout of the first covers all. Over IPv6 the node would
        // reset a packet that got past the program, without a socket.
        for (family, imds) in open.iter_mut().zip(BOTH) {
            let reply = family.remove(0).end();
            ensure!(reply == Reply::Silent, "without an agent, {reply:?} from {imds}");
        }
        system.expect_no_leak()
    });
}

/// Runs each test over both kinds of links.
macro_rules! over_both_links {
    ($($test:ident,)*) => {
        mod veth {
            $(#[test] fn $test() { super::$test(super::PodLink::Veth); })*
        }
        mod bridge {
            $(#[test] fn $test() { super::$test(super::PodLink::Bridge); })*
        }
    };
}

over_both_links! {
    a_time_wait_port_is_used_again,
    a_time_wait_port_is_used_again_with_rfc1337,
    a_late_fin_reaches_the_socket_that_waits_for_it,
    a_syn_over_a_forgotten_connection_is_served,
    connections_come_up_with_syn_cookies_forced,
    connections_opened_before_the_install_are_reset,
    old_connections_are_silent_without_an_agent,
}

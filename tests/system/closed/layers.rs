//! Each layer of the datapath alone: the fence without a program, the program without the fence, the backstop against
//! other processes of the node, and the check of a pod's source addresses.

use crate::support::{control_knock, expect_nothing, expect_role, knock, sockets_in};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES, Reply, forge},
    eventually::eventually,
    leaks,
    node::{
        bystander::Bystander,
        topology::{IMDS_V4, IMDS_V6, NODE_V4, NODE_V6, PodNetwork, Sender},
    },
    system::{System, scenario},
};
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// Long enough for a packet to arrive somewhere, short enough for many tries.
const GLANCE: Duration = Duration::from_millis(200);
/// Port of the IMDS.
const HTTP: u16 = 80;

/// Removes the rules of the fence, as a confused administrator or another agent might.
pub(crate) fn flush_rules(system: &System) -> Result<()> {
    for family in ["-4", "-6"] {
        for preference in [6, 5, 7] {
            system.topology.node.ip(&format!("{family} rule del pref {preference}"))?;
        }
        system.topology.node.ip(&format!("{family} route flush table 4242"))?;
    }
    Ok(())
}

/// Makes connections of a pod that the agent closes first, so that the node keeps each in TIME_WAIT.
fn leave_in_time_wait(pod: &PodNetwork, imds: IpAddr, ports: std::ops::Range<u16>) -> Result<()> {
    Pod::new(pod).run(|| {
        for port in ports {
            let mut connection = Connection::open(imds, Some(port), PATIENCE)?;
            connection.token(&[("Connection", "close")])?;
            ensure!(connection.end() == Reply::Closed, "the agent did not close");
        }
        Ok(())
    })
}

/// The fence alone closes an interface that is made while the agent is dead.
#[test]
fn fence_alone_closes_an_interface_made_without_agent() {
    scenario(|system| {
        let before = system.add_pod(1, "reader")?;
        control_knock(system, &before)?;
        // Does not wait until the pod is served: without the fence it would not be, and that is not tested here.
        system.start()?;
        system.agent()?.kill_both()?;
        let new = system.add_pod(2, "reader")?;
        knock(&new)?;
        system.expect_no_leak()?;
        expect_nothing(system, &new)?;
        // The restarted agent finds the interface and serves its pod.
        system.start_agent()?;
        for pod in [&before, &new] {
            system.wait_for_role(pod, IMDS4, "reader")?;
            expect_role(pod, "reader")?;
        }
        Ok(())
    });
}

/// The fence alone closes an interface that no program is attached to.
#[test]
fn fence_alone_closes_an_unmatched_interface() {
    scenario(|system| {
        let other = system.topology.add_pod_behind(1, "other1")?;
        system.announce(&other, "other", Some("reader"));
        control_knock(system, &other)?;
        system.start()?;
        knock(&other)?;
        system.expect_no_leak()?;
        expect_nothing(system, &other)
    });
}

/// The program alone stops new connections when the rules are gone.
#[test]
fn program_alone_stops_new_connections() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        control_knock(system, &pod)?;
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        // The frozen parent repairs nothing; the worker and the listeners continue.
        system.agent()?.freeze_parent()?;
        flush_rules(system)?;
        for imds in BOTH {
            for _ in 0..10 {
                let _whatever = Pod::new(&pod).attempt(imds, ROLES, GLANCE)?;
            }
        }
        knock(&pod)?;
        system.expect_no_leak()?;
        // The agent repairs the rules.
        system.agent()?.thaw_parent()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_role(&pod, "reader")
    });
}

/// The program alone stops a SYN over TIME_WAIT when the rules are gone.
#[test]
fn program_alone_stops_a_syn_over_time_wait() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for (imds, ports) in [(BOTH[0], 20_000..20_040), (BOTH[1], 21_000..21_040)] {
            leave_in_time_wait(&pod, imds, ports)?;
        }
        let waiting = sockets_in(&system.topology.node, "time-wait")?;
        ensure!(
            waiting >= 80,
            "only {waiting} connections are in TIME_WAIT on the node: the test's precondition is not met"
        );
        system.agent()?.freeze_parent()?;
        flush_rules(system)?;
        Pod::new(&pod).run(|| {
            for (imds, ports) in [(BOTH[0], 20_000..20_040), (BOTH[1], 21_000..21_040)] {
                let syns: Vec<_> = ports.map(|port| Connection::begin(imds, Some(port))).collect::<Result<_>>()?;
                std::thread::sleep(GLANCE);
                drop(syns);
            }
            Ok(())
        })?;
        system.expect_no_leak()?;
        system.agent()?.thaw_parent()?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

/// The program alone stops everything when the agent and the rules are gone.
#[test]
fn program_alone_stops_everything_without_agent() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        control_knock(system, &pod)?;
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        system.agent()?.kill_both()?;
        flush_rules(system)?;
        knock(&pod)?;
        system.expect_no_leak()?;
        expect_nothing(system, &pod)
    });
}

/// No other process of the node receives a packet that a pod sends to the IMDS.
#[test]
fn no_other_process_sees_packets_to_the_imds() {
    scenario(|system| {
        let (served, stray) = (system.add_pod(1, "reader")?, system.topology.add_pod_behind(2, "other2")?);
        let ports = [HTTP, 8080];
        let bystanders = ports.map(|port| Bystander::start(&system.topology.node, port));
        let bystanders: Vec<Bystander> = bystanders.into_iter().collect::<Result<_>>()?;
        control_bystanders(&stray, &bystanders)?;
        system.start()?;
        system.wait_for_role(&served, IMDS4, "reader")?;
        let expect_nothing_seen = |system: &System| {
            for pod in [&served, &stray] {
                knock(pod)?;
                for imds in BOTH {
                    let _whatever = Pod::new(pod).attempt(imds, ROLES, GLANCE)?;
                }
            }
            for bystander in &bystanders {
                bystander.expect_nothing()?;
            }
            system.expect_no_leak()
        };
        expect_nothing_seen(system)?;
        system.agent()?.kill_both()?;
        expect_nothing_seen(system)?;
        system.start_agent()?;
        system.wait_for_role(&served, IMDS4, "reader")?;
        expect_nothing_seen(system)
    });
}

/// Shows that the bystanders receive what a pod sends to the node itself, over TCP and UDP, and makes them forget it.
fn control_bystanders(pod: &PodNetwork, bystanders: &[Bystander]) -> Result<()> {
    Pod::new(pod).run(|| {
        for address in [IpAddr::from(NODE_V4), NODE_V6.into()] {
            for port in [HTTP, 8080] {
                drop(TcpStream::connect((address, port))?);
                let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
                std::net::UdpSocket::bind((any, 0))?.send_to(b"control", (address, port))?;
            }
        }
        Ok(())
    })?;
    for bystander in bystanders {
        eventually("the bystander sees the control", PATIENCE, || {
            let seen = bystander.seen();
            for kind in ["TCP 10.", "TCP [fd", "UDP 10.", "UDP [fd"] {
                ensure!(seen.iter().any(|line| line.starts_with(kind)), "no {kind} in {seen:?}");
            }
            Ok(())
        })?;
        // One of each was sent: no more can arrive later.
        bystander.forget();
    }
    Ok(())
}

/// Packets with a source address that no pod can have cause no answer to any address.
#[test]
fn impossible_sources_get_no_answer() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        let control = SocketAddr::new(IMDS_V4.into(), 30_000);
        Pod::new(&pod).run(|| forge::send_segment(control, IMDS_V4.into(), HTTP, forge::SYN))?;
        system.canary.settle(&system.topology.node)?;
        ensure!(!system.canary.packets_from(IMDS_V4.into()).is_empty(), "control: the forged SYN did not arrive");
        system.canary.forget();
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        let sources: [(IpAddr, &[&str]); 2] = [
            (
                IMDS_V4.into(),
                &["169.254.169.254", "127.0.0.1", "0.0.0.0", "0.0.0.1", "224.0.0.1", "255.255.255.255", "10.8.0.1"],
            ),
            (IMDS_V6.into(), &["fd00:ec2::254", "::1", "ff02::1", "fe80::1", "::ffff:169.254.169.254", "fd00:8::1"]),
        ];
        for (imds, sources) in sources {
            for (source, port) in sources.iter().zip(31_000..) {
                let source = SocketAddr::new(source.parse()?, port);
                // The pod's own kernel refuses some of them: those cannot come from a socket either.
                drop(Pod::new(&pod).run(|| forge::send_segment(source, imds, HTTP, forge::SYN)));
                drop(Pod::new(&pod).run(|| forge::send_segment(source, imds, HTTP, ACK)));
            }
        }
        // An unanswered SYN-ACK is retransmitted after a second.
        std::thread::sleep(Duration::from_millis(1500));
        system.expect_no_leak()?;
        let answers = system.canary.packets_of(Sender::Node);
        ensure!(answers.is_empty(), "{}: in answer to a forged source: {answers:?}", leaks::CANARY);
        expect_role(&pod, "reader")
    });
}

/// TCP flag ACK.
const ACK: u8 = 0x10;

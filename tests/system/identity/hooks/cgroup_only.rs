//! `--redirect=cgroup`: no TC program is attached; the hooks redirect pods in their own network namespaces to a
//! listener on the node's address.

use super::{
    IMDS, UIDS, expect_counted, expect_node_role, expect_nothing_at_the_canary, expect_refused, forget, from_node,
    from_pod, listening_on_loopback,
};
use crate::support::knock;
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::PATIENCE,
    eventually::eventually,
    node::{
        cgroups::{Driver, Kubepods, Qos},
        process,
        topology::{NODE_V4, NODE_V6, UPLINK_INTERFACE, UPLINK_V4},
    },
    system::{SOON, System, datapath_scenario},
};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// Time without a worker.
const PAUSE: Duration = Duration::from_secs(2);

fn start(system: &mut System, kubepods: &Kubepods) -> Result<()> {
    system.agent_flags =
        vec!["--redirect=cgroup".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
    system.spawn_agent()?.wait_armed()
}

/// Returns the agent's listeners outside loopback.
fn on_the_nodes_address(system: &System) -> Result<Vec<SocketAddr>> {
    let sockets = process::run(system.topology.node.command("ss").arg("-Hltn"))?;
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(3)).map(|local| Ok(local.parse()?));
    let mut local: Vec<SocketAddr> = local.collect::<Result<_>>()?;
    local.retain(|address| !address.ip().is_loopback());
    Ok(local)
}

/// Pods in their own network namespaces are redirected to the node's address.
#[test]
fn own_namespace_pods_are_sent_to_the_node_address() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let network = system.topology.add_pod(1)?;
        let pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        for imds in IMDS {
            expect_node_role(&from_pod(system, &pod, &network, &["tcp", imds])?)?;
        }
        system.canary.forget_closed(&system.topology.node, &network)?;
        start(system, &kubepods)?;
        let mut listening: Vec<IpAddr> = on_the_nodes_address(system)?.iter().map(SocketAddr::ip).collect();
        listening.sort();
        ensure!(listening == [IpAddr::from(NODE_V4), NODE_V6.into()], "{listening:?}");

        for imds in IMDS {
            let call = from_pod(system, &pod, &network, &["tcp", imds])?;
            expect_nothing_at_the_canary(system)?;
            ensure!(call.peer() == Some((imds, 80)), "{call:?}");
            expect_refused(system, &from_pod(system, &pod, &network, &["tcp", imds, "--port=81"])?)?;
            expect_refused(system, &from_pod(system, &pod, &network, &["udp", imds])?)?;
        }
        expect_counted(system, "connect", 3)?;
        // The hooks do not handle these packets; the fence and the backstop do.
        knock(&network)?;
        expect_nothing_at_the_canary(system)?;
        // hostNetwork pods and the node itself are left alone.
        for imds in IMDS {
            expect_node_role(&from_pod(system, &pod, &system.topology.node, &["tcp", imds])?)?;
            expect_node_role(&from_node(system, &["tcp", imds])?)?;
        }
        forget(system)?;
        system.agent()?.kill_both()?;
        for imds in IMDS {
            expect_refused(system, &from_pod(system, &pod, &network, &["tcp", imds])?)?;
        }
        Ok(())
    });
}

/// A connection that no hook has redirected is closed without being read.
#[test]
fn connection_without_a_hook_record_is_closed() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let network = system.topology.add_pod(1)?;
        let _pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        start(system, &kubepods)?;
        let listening = on_the_nodes_address(system)?;
        for &address in &listening {
            for from in [&*network, &system.topology.uplink, &system.topology.node] {
                let answer = from.enter(|| {
                    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    // The connection may be closed by now.
                    drop(stream.write_all(b"GET /latest/meta-data/ HTTP/1.0\r\n\r\n"));
                    let mut answer = Vec::new();
                    Ok(stream.read_to_end(&mut answer).map(|_| answer))
                })?;
                ensure!(answer.as_ref().is_ok_and(Vec::is_empty) || answer.is_err(), "{address}: {answer:?}");
            }
        }
        Ok(())
    });
}

/// While no worker runs, connections to the node's address get no answer.
#[test]
fn node_address_is_silent_without_a_worker() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        start(system, &kubepods)?;
        let listening = on_the_nodes_address(system)?;
        system.agent()?.crash_worker_until_paused(PAUSE)?;
        for address in listening {
            let answer = system.topology.uplink.enter(|| {
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_read_timeout(Some(PAUSE / 4))?;
                let mut answer = Vec::new();
                Ok(stream.read_to_end(&mut answer).map(|_| answer))
            })?;
            ensure!(answer.is_err(), "{address}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn lost_node_address_is_reported() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        start(system, &kubepods)?;
        let node = &system.topology.node;
        node.ip(&format!("addr add 10.8.0.7/24 dev {UPLINK_INTERFACE}"))?;
        node.ip(&format!("route replace default via {UPLINK_V4} src 10.8.0.7"))?;
        let agent = system.agent()?;
        eventually("it is reported", SOON, || {
            let health = String::from_utf8(agent.health()?.stdout)?;
            let wanted = format!("FAIL  listeners: the node's addresses are [10.8.0.7, {NODE_V6}] now");
            ensure!(health.contains(&wanted), "{health}");
            Ok(())
        })
    });
}

/// In every other mode the agent listens on loopback only.
#[test]
fn other_modes_listen_on_loopback_only() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, UIDS[0], Qos::Burstable)?;
        let flags: [&[&str]; 3] = [&[], &["--redirect=tc"], &["--redirect=tc,cgroup", "--host-network-pods=enforce"]];
        for flags in flags {
            system.agent_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            system.agent_flags.push(format!("--kubepods-cgroup={}", kubepods.path().display()));
            system.spawn_agent()?.wait_armed()?;
            ensure!(!listening_on_loopback(&system.topology.node)?.is_empty(), "{flags:?}: the agent has no listener");
            let outside = on_the_nodes_address(system)?;
            ensure!(outside.is_empty(), "{flags:?}: {outside:?}");
            system.agent()?.stop()?;
        }
        Ok(())
    });
}

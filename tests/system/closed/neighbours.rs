//! Other users of the node, which the agent must not disturb: its own route to the real IMDS, a server on its port 80,
//! a bridge with pods that the agent does not serve.

use crate::support::{expect_role, knock};
use anyhow::{Context as _, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES},
    node::bystander::Bystander,
    system::{System, scenario},
};

/// A server of the node binds port 80 while pods are connected to the agent.
#[test]
fn server_binds_port_80_while_pods_are_connected() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let open: Vec<Connection> = Pod::new(&pod).run(|| {
            let mut open = Vec::new();
            for imds in BOTH {
                // One that stays open, and one that the agent closes, which leaves the node's end in TIME_WAIT.
                for connection in ["keep-alive", "close"] {
                    let mut client = Connection::open(imds, None, PATIENCE)?;
                    client.token(&[("Connection", connection)])?;
                    open.push(client);
                }
            }
            Ok(open)
        })?;
        let server = Bystander::start(&system.topology.node, 80).context("a server like nginx, Envoy or Go's")?;
        drop(open);
        expect_role(&pod, "reader")?;
        server.expect_nothing()
    });
}

#[test]
fn nodes_own_route_to_the_real_imds_stays_open() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        let node_role = |system: &System| {
            for imds in BOTH {
                let answer = Pod::new(&system.topology.node).get(imds, ROLES)?;
                ensure!(answer.text() == kiam_tests::fakes::canary::NODE_ROLE, "the node at {imds}: {answer:?}");
            }
            Ok(())
        };
        node_role(system)?;
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        node_role(system)?;
        system.agent()?.kill_both()?;
        node_role(system)?;
        system.start_agent()?;
        node_role(system)
    });
}

#[test]
fn bridged_pod_never_reaches_the_real_imds() {
    scenario(|system| {
        system.start()?;
        let pod = system.topology.add_pod(1)?;
        let node = &system.topology.node;
        node.ip("link add cali-br type bridge")?;
        node.ip("link set cali-br address ee:ee:ee:ee:ee:ee up")?;
        node.ip("link set cali1 master cali-br")?;
        node.ip_batch(&[
            format!("route replace {}/32 dev cali-br", pod.v4),
            format!("route replace {}/128 dev cali-br", pod.v6),
        ])?;
        knock(&pod)?;
        system.expect_no_leak()?;
        system.agent()?.kill_both()?;
        knock(&pod)?;
        system.expect_no_leak()
    });
}

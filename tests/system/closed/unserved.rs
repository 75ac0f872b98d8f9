//! Networks that cannot be served by interface are reported, but only those that exist.

use crate::operators::status;
use anyhow::{Result, ensure};
use aya::util::KernelVersion;
use kiam_tests::{
    eventually::eventually,
    node::{
        cgroups::{Driver, Kubepods, Qos},
        netns::Netns,
        topology::{PodNetwork, UPLINK_INTERFACE},
    },
    system::{SOON, System, datapath_scenario},
};
use serde_json::Value;

const UID: &str = "11111111-1111-1111-1111-111111111111";

/// Returns the notices of an agent, with their subjects.
fn notices(system: &System) -> Result<Vec<(String, String)>> {
    let (report, _) = status::report(system)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let notices = report["agent"]["notices"].as_array().into_iter().flatten();
    Ok(notices.map(|notice| (text(&notice["about"]), text(&notice["text"]))).collect())
}

/// Asserts that a network made after the agent's start is reported at its next check, with all of `words`, and that
/// nothing else is.
fn expect_reported(about: &str, words: &[&str], make: fn(&Netns, &PodNetwork) -> Result<()>) {
    datapath_scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        system.agent_flags.push("--host-interface=cali+,tun0".to_owned());
        system.spawn_agent()?.wait_armed()?;
        ensure!(notices(system)?.is_empty(), "reported before it exists: {:?}", notices(system)?);
        make(&system.topology.node, &pod)?;
        eventually("it is reported", SOON, || {
            let reported = notices(system)?;
            let [(found, text)] = &reported[..] else { anyhow::bail!("{reported:?}") };
            ensure!(found == about && words.iter().all(|word| text.contains(word)), "{reported:?}");
            Ok(())
        })
    });
}

#[test]
fn a_macvlan_of_the_node() {
    expect_reported("macvlan", &["uplink: mv0.", "--host-network-pods=enforce"], |node, _| {
        node.ip(&format!("link add mv0 link {UPLINK_INTERFACE} type macvlan mode bridge")).map(drop)
    });
}

#[test]
fn a_macvlan_that_a_pod_has_beside_its_veth() {
    expect_reported("macvlan", &["one of the pod behind cali1."], |node, pod| {
        let line = format!("link add net1 link {UPLINK_INTERFACE} netns {} type macvlan mode bridge", pod.name());
        node.ip(&line).map(drop)
    });
}

#[test]
fn matched_device_without_ethernet_header() {
    expect_reported("unfit", &["tun0", "no Ethernet header"], |node, _| node.ip("tuntap add tun0 mode tun").map(drop));
}

#[test]
fn a_pod_with_security_groups_in_strict_mode() {
    expect_reported("pod-security-groups", &["vlan0123456789a", "ENFORCING_MODE=standard"], |node, _| {
        node.ip("link add vlan0123456789a type veth peer name peer0").map(drop)
    });
}

#[test]
fn second_interface_of_a_pod_in_an_ipv6_cluster() {
    expect_reported("ipv4-egress", &["veth0", "169.254.172.0/22"], |node, _| {
        node.ip_batch(&[
            "link add veth0 type veth peer name peer0".to_owned(),
            "link set veth0 up".to_owned(),
            "route add 169.254.172.5/32 dev veth0".to_owned(),
        ])
    });
}

/// On a kernel that does not report the network namespace to the agent, hostNetwork pods of a node in a container, like
/// those of these tests, are not served.
#[test]
fn host_network_pods_without_a_netns_cookie() {
    datapath_scenario(|system| {
        let kubepods = Kubepods::create(Driver::Cgroupfs)?;
        let _pod = kubepods.add_pod(&system.topology.node, UID, Qos::BestEffort)?;
        system.agent_flags =
            vec!["--host-network-pods=enforce".to_owned(), format!("--kubepods-cgroup={}", kubepods.path().display())];
        let agent = system.spawn_agent()?;
        if KernelVersion::current()? >= KernelVersion::new(5, 14, 0) {
            return agent.wait_armed();
        }
        eventually("it is reported", SOON, || {
            let health = String::from_utf8(agent.health()?.stdout)?;
            let hooks = health.lines().find(|line| line.starts_with("FAIL  cgroup-hooks: ")).unwrap_or_default();
            ensure!(hooks.contains("Linux before 5.14"), "{health}");
            Ok(())
        })
    });
}

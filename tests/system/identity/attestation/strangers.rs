//! Processes that claim to be another pod: by its address, its network, or the name of its cgroup.

use super::*;
use kiam_tests::{
    clients::{Connection, PATIENCE, forge},
    node::{
        netns::Netns,
        topology::{BRIDGE_V4, IMDS_V4},
    },
};
use std::net::SocketAddr;

/// Port of a connection with a fixed source port.
const PORT: u16 = 23_456;

#[test]
fn process_of_another_pods_cgroup_is_refused() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, mut writer] = two_served(system, &kubepods)?;
        writer.live_in(reader.cgroup.container());
        expect_refused(system, &writer.network, 403, "contradiction")?;
        // A process in no pod's cgroup is refused as well, such as one of the node or of another slice.
        writer.live_in(kubepods.path());
        expect_refused(system, &writer.network, 403, "not-a-pod")?;
        writer.live_at_home();
        expect_served(system, &writer, WRITER)
    });
}

fn look_alike_is_ignored_by(driver: Driver) {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(driver)?;
        let [mut reader, mut writer] = two_served(system, &kubepods)?;
        // Below its container, as a pod with a delegated subtree can make it: a whole kubepods tree, and the other pod
        // at the depths where a kubelet makes pods.
        let own = reader.cgroup.container().to_owned();
        let below_writer = writer.cgroup.path().strip_prefix(kubepods.path())?.to_owned();
        for fake in [own.join(&below_writer), own.join("kubepods").join(&below_writer)] {
            kubepods.make_group(&fake)?;
            reader.live_in(&fake);
            expect_served(system, &reader, READER)?;
            writer.live_in(&fake);
            expect_refused(system, &writer.network, 403, "contradiction")?;
        }
        writer.live_at_home();
        expect_served(system, &writer, WRITER)
    });
}

/// A cgroup below a pod's that looks like that of another pod does not change the pod (cgroupfs driver).
#[test]
fn look_alike_below_a_pods_cgroup_by_cgroupfs() {
    look_alike_is_ignored_by(Driver::Cgroupfs);
}

/// A cgroup below a pod's that looks like that of another pod does not change the pod (systemd driver).
#[test]
fn look_alike_below_a_pods_cgroup_by_systemd() {
    look_alike_is_ignored_by(Driver::Systemd);
}

#[test]
fn a_static_pod_has_no_role() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let [mut reader, _writer] = two_served(system, &kubepods)?;
        // The kubelet names its cgroup by this hash, and the mirror pod at its address by another UID.
        let own = kubepods.add_pod(&system.topology.node, "0123456789abcdef0123456789abcdef", Qos::Burstable)?;
        reader.live_in(own.container());
        expect_refused(system, &reader.network, 403, "static-pod")
    });
}

/// Makes the network believe that the victim's address is the thief's; the victim no longer answers.
fn take_over_address(system: &System, thief: &PodNetwork, victim: &PodNetwork) -> Result<()> {
    victim.ip("link set eth0 down")?;
    let mac = mac_of(thief)?;
    thief.ip(&format!("addr add {}/24 dev eth0", victim.v4))?;
    system.topology.node.ip(&format!("neigh replace {} lladdr {mac} dev {BRIDGE}", victim.v4))?;
    Ok(())
}

fn mac_of(netns: &Netns) -> Result<String> {
    let link = netns.ip("-o link show dev eth0")?;
    let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(mac.with_context(|| format!("no MAC address in {link:?}"))?.to_owned())
}

/// Returns the answer to a namespace that sends from this address.
fn role_at(netns: &PodNetwork, source: std::net::Ipv4Addr) -> Result<Answer> {
    netns.ip(&format!("route replace {IMDS_V4} via {BRIDGE_V4} src {source}"))?;
    Pod::new(netns).get(IMDS4, ROLES)
}

#[test]
fn neighbours_address_is_useless_on_a_bridge() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        system.topology.add_bridge(BRIDGE)?;
        system.agent_flags.push(format!("--host-interface={BRIDGE}"));
        let thief = Attested::bridged(system, &kubepods, 1, READER)?;
        let victim = Attested::bridged(system, &kubepods, 2, WRITER)?;
        system.start_server()?;
        attest(system, &kubepods, "prefer");
        system.start_agent()?;
        expect_served(system, &thief, READER)?;
        expect_served(system, &victim, WRITER)?;
        take_over_address(system, &thief.network, &victim.network)?;
        let stolen = role_at(&thief.network, victim.network.v4)?;
        ensure!(stolen.text() != WRITER, "{}: {stolen:?}", leaks::OTHER_ROLE);
        ensure!(stolen.status == 403, "{stolen:?}");
        let own = role_at(&thief.network, thief.network.v4)?;
        ensure!(own.text() == READER, "{own:?}");
        // Control: by the address alone it would be the other pod.
        system.agent()?.stop()?;
        attest(system, &kubepods, "off");
        system.start_agent()?;
        eventually("the address alone is enough", SOON, || {
            let stolen = role_at(&thief.network, victim.network.v4)?;
            ensure!(stolen.text() == WRITER, "control: {stolen:?}");
            Ok(())
        })
    });
}

/// A neighbour's forged SYN can cost a pod a connection, but gains the neighbour nothing.
#[test]
fn forged_syn_of_a_neighbour_gains_nothing() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        system.topology.add_bridge(BRIDGE)?;
        attest(system, &kubepods, "prefer");
        system.agent_flags.push(format!("--host-interface={BRIDGE}"));
        let liar = Attested::bridged(system, &kubepods, 1, READER)?;
        let victim = Attested::bridged(system, &kubepods, 2, WRITER)?;
        system.start()?;
        expect_served(system, &victim, WRITER)?;
        let source = SocketAddr::new(victim.network.v4.into(), PORT);
        Pod::new(&liar.network).run(|| forge::send_segment(source, IMDS4, 80, forge::SYN))?;
        eventually("the forged SYN is on record", SOON, || {
            ensure!(records(system)? > 0);
            Ok(())
        })?;
        let request_from = |port: u16| {
            Pod::new(&victim.network).run(|| {
                let mut connection = Connection::open(IMDS4, Some(port), PATIENCE)?;
                connection.send("GET", ROLES, &[])?;
                connection.answer()
            })
        };
        let doubtful = request_from(PORT)?;
        ensure!(doubtful.text() != READER, "{}: {doubtful:?}", leaks::OTHER_ROLE);
        ensure!(doubtful.status == 403 && refusals(system, "several-records")? == 1, "{doubtful:?}");
        // Reading has removed both records.
        let again = request_from(PORT + 1)?;
        ensure!(again.text() == WRITER, "{again:?}");
        expect_served(system, &liar, READER)
    });
}

#[test]
fn port_without_records_serves_no_pod() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        system.topology.add_bridge(BRIDGE)?;
        attest(system, &kubepods, "prefer");
        system.agent_flags.push(format!("--host-interface={BRIDGE},!veth2"));
        let reader = Attested::bridged(system, &kubepods, 1, READER)?;
        let unseen = Attested::bridged(system, &kubepods, 2, WRITER)?;
        system.start()?;
        expect_served(system, &reader, READER)?;
        expect_refused(system, &unseen.network, 403, "no-record")
    });
}

/// Configures a gateway as pods have it, in a namespace with the pod's address.
fn configure(netns: &Netns, address: std::net::Ipv4Addr, gateway: &str) -> Result<()> {
    netns.ip_batch(&[
        format!("addr add {address}/32 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add {gateway} dev eth0 scope link"),
        format!("route add default via {gateway}"),
    ])
}

/// A namespace inside a pod counts as the pod where the kernel sees its sockets.
#[test]
fn nested_namespace_counts_as_its_pod() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        // The pod's own interface, moved: its packets keep their socket.
        let mut inner = Netns::create("inner")?;
        inner.live_in(reader.cgroup.container());
        reader.network.ip(&format!("link set eth0 netns {}", inner.name()))?;
        configure(&inner, reader.network.v4, "169.254.1.1")?;
        inner.ip("neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent")?;
        let answer = eventually("the inner namespace is answered", SOON, || Pod::new(&inner).get(IMDS4, ROLES))?;
        ensure!(answer.text() == READER, "{answer:?}");
        // A forwarding namespace: its packets lose their socket on the way, so their pod cannot be identified.
        let address = writer.network.v4;
        let mut behind = Netns::create("behind")?;
        behind.live_in(writer.cgroup.container());
        writer.network.sysctl("net.ipv4.ip_forward", "1")?;
        writer.network.ip_batch(&[
            format!("link add inner type veth peer name eth0 netns {}", behind.name()),
            format!("addr del {address}/32 dev eth0"),
            "addr add 10.77.0.1/24 dev inner".to_owned(),
            "link set inner up".to_owned(),
            "route replace 169.254.1.1 dev eth0 scope link".to_owned(),
            "route replace default via 169.254.1.1".to_owned(),
            "neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent".to_owned(),
            format!("route add {address} dev inner"),
        ])?;
        configure(&behind, address, "10.77.0.1")?;
        let answer = eventually("the namespace behind is answered", SOON, || Pod::new(&behind).get(IMDS4, ROLES))?;
        ensure!(answer.status == 403 && refusals(system, "not-a-pod")? == 1, "{answer:?}");
        Ok(())
    });
}

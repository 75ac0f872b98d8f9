//! The decision, as a table: what the kernel reports, what the server answers, and the outcome.

use super::*;
use crate::{attestation::PodUid, imds::peer::PendingAttestation};
use std::{future, time::Duration};

const UID: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";
const STATIC: &str = "0123456789abcdef0123456789abcdef";
const POD: [u8; 4] = [10, 0, 0, 7];
/// A routed veth, the device of a virtual machine, and a bridge with a port of each kind.
const VETH: u32 = 3;
const GUEST: u32 = 4;
const BRIDGE: u32 = 5;
const VETH_PORT: u32 = 6;
const GUEST_PORT: u32 = 7;

fn interface(index: u32) -> Interface {
    let (kind, bridge) = match index {
        BRIDGE => (InterfaceKind::Bridge, None),
        VETH_PORT => (InterfaceKind::Veth, Some(BRIDGE)),
        GUEST_PORT => (InterfaceKind::Other, Some(BRIDGE)),
        GUEST => (InterfaceKind::Other, None),
        _ => (InterfaceKind::Veth, None),
    };
    Interface { index, name: format!("cali{index}"), first_seen_ms: Some(u64::from(index)), bridge, kind }
}

fn interfaces(indexes: &[u32]) -> Arc<Interfaces> {
    Arc::new(Interfaces::new(&indexes.iter().map(|index| interface(*index)).collect::<Vec<_>>()))
}

fn attribution(mode: Attestation) -> (Attribution, watch::Sender<Arc<Interfaces>>) {
    let (parent, reported) = watch::channel(interfaces(&[VETH, GUEST, BRIDGE, VETH_PORT, GUEST_PORT]));
    (Attribution::new(mode, reported), parent)
}

fn peer_at(address: [u8; 4], index: Option<u32>, origin: Option<Origin>) -> Peer {
    let attestation = PendingAttestation::new(future::ready(origin));
    Peer { address: address.into(), arrival: Arrival::Interface { index, attestation } }
}

fn peer(index: u32, origin: Origin) -> Peer {
    peer_at(POD, Some(index), Some(origin))
}

fn origin(interface: u32, kubepods: bool, owner: SocketOwner) -> Origin {
    Origin { interface, kubepods, owner }
}

fn owned(uid: &str) -> SocketOwner {
    SocketOwner::Pod(PodUid::parse(uid).unwrap())
}

/// Returns the outcome in one word.
async fn judged(mode: Attestation, peer: &Peer) -> String {
    match attribution(mode).0.caller(peer, Instant::now()).await {
        Ok(Caller { address: Some(_), pod: Some(pod), interface_first_seen_ms: Some(born) }) => {
            format!("pod{} {born}", if pod.must_match { "!" } else { "" })
        }
        Ok(Caller { address: Some(_), pod: None, interface_first_seen_ms: Some(born) }) => {
            format!("address {born}")
        }
        Ok(caller) => format!("{caller:?}"),
        Err(why) => format!("{why:?}"),
    }
}

#[tokio::test]
async fn outcome_by_mode_and_kernel_evidence() {
    let none = |kubepods| origin(0, kubepods, SocketOwner::NoRecord);
    let nobody = |interface, kubepods| origin(interface, kubepods, SocketOwner::NotAPod);
    let pod = |interface| origin(interface, true, owned(UID));
    for (index, origin, require, prefer, off) in [
        (VETH, pod(VETH), "pod! 3", "pod 3", "address 3"),
        (VETH, nobody(VETH, true), "NotAPod", "NotAPod", "address 3"),
        (VETH, none(true), "NoRecord", "NoRecord", "address 3"),
        // Pods in version 1 hierarchies.
        (VETH, nobody(VETH, false), "NotAPod", "address 3", "address 3"),
        (VETH, none(false), "NoRecord", "address 3", "address 3"),
        // The kernel of a virtual machine opened it; or it was opened in the pod's cgroup all the same.
        (GUEST, nobody(GUEST, true), "NotAPod", "address 4", "address 4"),
        (GUEST, none(true), "NoRecord", "address 4", "address 4"),
        (GUEST, pod(GUEST), "pod! 4", "pod 4", "address 4"),
        // On a bridge, the age of the port counts, and without a record the pod is unknown.
        (BRIDGE, pod(VETH_PORT), "pod! 6", "pod 6", "address 5"),
        (BRIDGE, nobody(VETH_PORT, true), "NotAPod", "NotAPod", "address 5"),
        (BRIDGE, nobody(GUEST_PORT, true), "NotAPod", "address 7", "address 5"),
        (BRIDGE, nobody(VETH_PORT, false), "NotAPod", "address 6", "address 5"),
        (BRIDGE, none(true), "NoRecord", "NoRecord", "address 5"),
        (BRIDGE, none(false), "NoRecord", "NoRecord", "address 5"),
        (BRIDGE, origin(0, false, SocketOwner::Several), "Several", "Several", "address 5"),
        (VETH, origin(VETH, true, owned(STATIC)), "StaticPod", "StaticPod", "address 3"),
        // An interface that the parent did not report.
        (9, pod(9), "Interface", "Interface", "Interface"),
        (BRIDGE, pod(9), "Interface", "Interface", "address 5"),
    ] {
        let modes = [(Attestation::Require, require), (Attestation::Prefer, prefer), (Attestation::Off, off)];
        for (mode, wanted) in modes {
            assert_eq!(judged(mode, &peer(index, origin)).await, wanted, "{mode:?} {index} {origin:?}");
        }
    }
    assert_eq!(judged(Attestation::Prefer, &peer_at(POD, None, Some(pod(VETH)))).await, "Interface");
    for (mode, wanted) in [(Attestation::Prefer, "Untold"), (Attestation::Off, "address 3")] {
        assert_eq!(judged(mode, &peer_at(POD, Some(VETH), None)).await, wanted, "{mode:?}");
    }
}

#[tokio::test]
async fn hook_connections_have_a_pod_in_every_mode() {
    for mode in [Attestation::Require, Attestation::Prefer, Attestation::Off] {
        for (on_node_network, address) in [(true, None), (false, Some(IpAddr::from(POD)))] {
            let uid = PodUid::parse(UID).unwrap();
            let peer = Peer { address: POD.into(), arrival: Arrival::Hook { pod: uid, on_node_network } };
            let pod = Some(AttestedPod { uid, must_match: true });
            let wanted = Caller { address, pod, interface_first_seen_ms: None };
            assert_eq!(attribution(mode).0.caller(&peer, Instant::now()).await, Ok(wanted));
        }
    }
}

/// An egress address of the VPC CNI does not identify a pod, so the cgroup alone does.
#[tokio::test]
async fn vpc_cni_egress_address_is_not_sent_with_a_cgroup() {
    let egress = [169, 254, 172, 5];
    let uid = PodUid::parse(UID).unwrap();
    let alone =
        Caller { address: None, pod: Some(AttestedPod { uid, must_match: true }), interface_first_seen_ms: None };
    let hook = Peer { address: egress.into(), arrival: Arrival::Hook { pod: uid, on_node_network: false } };
    for mode in [Attestation::Require, Attestation::Prefer] {
        let (attribution, _parent) = attribution(mode);
        assert_eq!(attribution.caller(&hook, Instant::now()).await, Ok(alone));
        let peer = peer_at(egress, Some(VETH), Some(origin(VETH, true, owned(UID))));
        let found = attribution.caller(&peer, Instant::now()).await.unwrap();
        assert_eq!((found.address, found.pod), (None, alone.pod), "{mode:?}");
    }
    // Without the cgroup it is sent like any other address; the server has no pod with it.
    let (attribution, _parent) = attribution(Attestation::Off);
    let found = attribution.caller(&peer_at(egress, Some(VETH), None), Instant::now()).await.unwrap();
    assert_eq!((found.address, found.pod), (Some(egress.into()), None));
}

/// A connection may arrive before the parent has reported its interface or bridge port.
#[tokio::test(start_paused = true)]
async fn new_interface_or_port_is_awaited_until_deadline() {
    for (index, origin, late) in
        [(30, origin(30, true, owned(UID)), &[30][..]), (BRIDGE, origin(60, true, owned(UID)), &[BRIDGE, 60])]
    {
        let (attribution, parent) = attribution(Attestation::Prefer);
        let deadline = Instant::now() + Duration::from_millis(900);
        let peer = peer(index, origin);
        assert_eq!(attribution.caller(&peer, deadline).await, Err(Unattributable::Interface));
        assert!(Instant::now() >= deadline);

        let deadline = Instant::now() + Duration::from_millis(900);
        let report = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            parent.send_replace(interfaces(&[9]));
            parent.send_replace(interfaces(late));
        };
        let (caller, ()) = tokio::join!(attribution.caller(&peer, deadline), report);
        assert_eq!(caller.unwrap().interface_first_seen_ms, Some(u64::from(origin.interface)));
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_parent_is_awaited_until_the_deadline() {
    let (attribution, _parent) = attribution(Attestation::Prefer);
    let attestation = PendingAttestation::new(future::pending());
    let peer = Peer { address: POD.into(), arrival: Arrival::Interface { index: Some(VETH), attestation } };
    let deadline = Instant::now() + Duration::from_millis(900);
    assert_eq!(attribution.caller(&peer, deadline).await, Err(Unattributable::Untold));
    assert_eq!(Instant::now(), deadline);
}

/// An unattested address belongs to the interface that it was first seen behind, until that is gone.
#[tokio::test]
async fn address_stays_at_its_first_interface() {
    let by_address = |index| peer(index, origin(index, false, SocketOwner::NotAPod));
    let (attribution, parent) = attribution(Attestation::Prefer);
    let now = Instant::now();
    for index in [VETH, VETH] {
        assert!(attribution.caller(&by_address(index), now).await.is_ok());
    }
    assert_eq!(attribution.caller(&by_address(GUEST), now).await, Err(Unattributable::Elsewhere));
    let bridged = |port| peer(BRIDGE, origin(port, false, SocketOwner::NotAPod));
    assert_eq!(attribution.caller(&bridged(VETH_PORT), now).await, Err(Unattributable::Elsewhere));
    // An attested pod may use any interface: the server compares the address.
    let attested = peer(GUEST, origin(GUEST, true, owned(UID)));
    assert!(attribution.caller(&attested, now).await.is_ok());

    parent.send_replace(interfaces(&[GUEST, BRIDGE, VETH_PORT, GUEST_PORT]));
    assert!(attribution.caller(&bridged(VETH_PORT), now).await.is_ok(), "its first home is gone");
    assert_eq!(attribution.caller(&bridged(GUEST_PORT), now).await, Err(Unattributable::Elsewhere));
}

/// An interface with too many addresses does not take any from another interface.
#[test]
fn addresses_per_interface_are_limited() {
    let (living, mut homes) = (interfaces(&[VETH, GUEST]), Homes::default());
    let address = |n: usize| IpAddr::from([10, 1, u8::try_from(n / 256).unwrap(), u8::try_from(n % 256).unwrap()]);
    let taken = (0..10_000).filter(|n| homes.is_home(address(*n), VETH, &living)).count();
    assert_eq!(taken, ADDRESSES_PER_INTERFACE_MAX);
    assert!(homes.is_home(address(0), VETH, &living), "earlier addresses stay");
    assert!(homes.is_home(POD.into(), GUEST, &living));
    assert!(homes.is_home(address(0), GUEST, &interfaces(&[GUEST])));
    assert_eq!(homes.0.len(), 2, "addresses of removed interfaces are forgotten");
}

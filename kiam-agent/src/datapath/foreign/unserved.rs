//! Networks of pods that cannot be served by the interface by which their packets arrive. The agent cannot change this;
//! a notice for the operator describes each, with a remedy.

use crate::{
    config::{DatapathConfig, HostNetworkPods},
    datapath::node::{
        devices::{self, Device, Kind},
        roles::Roles,
    },
    report::Notice,
};
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};

/// Prefix of a pod's interface under security groups for pods of the VPC CNI in strict mode; [`STRICT_HASH_LEN`] digits
/// of a hash follow (`generateHostVethName` in its `cmd/routed-eni-cni-plugin`).
const STRICT_PREFIX: &str = "vlan";
const STRICT_HASH_LEN: usize = 11;

/// Devices and routes of this node.
#[derive(Default)]
struct Seen<'a> {
    devices: &'a [Device],
    /// Devices in the namespaces at the other ends of veths, by the id that our namespace has for each.
    elsewhere: BTreeMap<i32, Vec<Device>>,
    /// Devices with a route to an address that the VPC CNI gives to pods for IPv4 only.
    egress_v4: BTreeSet<u32>,
}

/// Returns the notices for this node. `devices`: those of this namespace.
pub(crate) async fn notices(
    netlink: &Handle,
    devices: &[Device],
    roles: &Roles,
    config: &DatapathConfig,
) -> anyhow::Result<Vec<Notice>> {
    let elsewhere = elsewhere(netlink, devices).await;
    let seen = Seen { devices, elsewhere, egress_v4: devices::with_egress_v4_route(netlink).await? };
    let enforced = config.host_network_pods == HostNetworkPods::Enforce;
    let mut notices: Vec<Notice> = children(&seen, roles, enforced).into_iter().collect();
    if config.mode.tc {
        notices.extend(unfit(roles));
        notices.extend(strict_mode(&seen));
        notices.extend(egress_v4(&seen, roles));
    }
    Ok(notices)
}

/// Lists the devices in the namespaces at the other ends of veths. A namespace that has disappeared is left out.
async fn elsewhere(netlink: &Handle, devices: &[Device]) -> BTreeMap<i32, Vec<Device>> {
    let veths = devices.iter().filter(|device| device.kind == Kind::Veth);
    let namespaces: BTreeSet<i32> = veths.filter_map(|veth| veth.lower_in).collect();
    let mut elsewhere = BTreeMap::new();
    for namespace in namespaces {
        match devices::list_in(netlink, namespace).await {
            Ok(devices) => drop(elsewhere.insert(namespace, devices)),
            Err(error) => tracing::debug!(namespace, "cannot list the interfaces of a pod: {error:#}"),
        }
    }
    elsewhere
}

/// Reports pods on macvlan and ipvlan devices of an uplink: their packets bypass the node's network stack.
fn children(seen: &Seen<'_>, roles: &Roles, enforced: bool) -> Option<Notice> {
    let mut found: Vec<String> = Vec::new();
    for device in seen.devices {
        if device.lower_in.is_none() && is_child_of_uplink(device, roles) {
            found.push(device.name.clone());
        }
        if has_child_elsewhere(device, seen, roles) {
            // Its own name is not printed: the pod can choose any.
            found.push(format!("one of the pod behind {}", device.name));
        }
    }
    let meaning = match enforced {
        true => "--host-network-pods=enforce drops those that the process of a pod sends",
        false => "they reach the real IMDS, which returns the node role; --host-network-pods=enforce prevents this",
    };
    let what = format!(
        "macvlan or ipvlan on an uplink: {}. Their packets to the metadata service bypass the program and the fence; \
         {meaning}",
        found.join(", ")
    );
    (!found.is_empty()).then(|| notice("macvlan", what))
}

/// Returns whether the pod at the other end of a veth has such a device. The pod's namespace has its own id for ours:
/// the one that the other end of the veth reports for this end.
fn has_child_elsewhere(veth: &Device, seen: &Seen<'_>, roles: &Roles) -> bool {
    let theirs = veth.lower_in.and_then(|namespace| seen.elsewhere.get(&namespace)).filter(|_| veth.kind == Kind::Veth);
    let Some(theirs) = theirs else { return false };
    let other_end = theirs.iter().find(|device| Some(device.index) == veth.lower);
    let Some(home) = other_end.and_then(|device| device.lower_in) else { return false };
    theirs.iter().any(|device| device.lower_in == Some(home) && is_child_of_uplink(device, roles))
}

fn is_child_of_uplink(device: &Device, roles: &Roles) -> bool {
    device.kind == Kind::Child && device.lower.is_some_and(|lower| roles.uplinks.contains_key(&lower))
}

/// Reports matched devices to which no program can be attached.
fn unfit(roles: &Roles) -> impl Iterator<Item = Notice> {
    roles.unfit.values().map(|(name, why)| {
        let what = "is matched by --host-interface, but its pods get no answer from the metadata service";
        let todo =
            format!("exclude it with --host-interface=!{name} if it does not lead to pods, else use --redirect=cgroup");
        notice("unfit", format!("{name} {what}: {why}; {todo}"))
    })
}

/// Reports security groups for pods in strict mode: the routes to such a pod are in a table that is used only for
/// packets from its own network card and interface, so the node's answers are lost.
fn strict_mode(seen: &Seen<'_>) -> Option<Notice> {
    let is_strict = |device: &&Device| {
        let hash = device.name.strip_prefix(STRICT_PREFIX).unwrap_or_default();
        device.kind == Kind::Veth && hash.len() == STRICT_HASH_LEN && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let what = "pods with security groups of their own in strict mode are not served, because the node has no route \
                back to them: set POD_SECURITY_GROUP_ENFORCING_MODE=standard for the VPC CNI, or use --redirect=cgroup \
                with its DISABLE_TCP_EARLY_DEMUX=true";
    behind("pod-security-groups", seen.devices.iter().filter(is_strict), what)
}

/// Reports the second interface that pods of an IPv6 cluster have for IPv4. If the program is attached to it, the
/// connection record identifies the pod.
fn egress_v4(seen: &Seen<'_>, roles: &Roles) -> Option<Notice> {
    let is_one = |device: &&Device| {
        let leads_there = device.kind == Kind::Veth && seen.egress_v4.contains(&device.index);
        leads_there && !roles.pod_sides.contains_key(&device.index)
    };
    let what = "pods of this IPv6 cluster reach 169.254.169.254 from addresses of 169.254.172.0/22, by interfaces that \
                --host-interface does not match, and get no answer: match those too, or use --redirect=cgroup, or set \
                AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6 for the pods";
    behind("ipv4-egress", seen.devices.iter().filter(is_one), what)
}

fn behind<'a>(about: &str, devices: impl Iterator<Item = &'a Device>, what: &str) -> Option<Notice> {
    let names: Vec<&str> = devices.map(|device| device.name.as_str()).collect();
    (!names.is_empty()).then(|| notice(about, format!("{what}. They are behind {}", names.join(", "))))
}

fn notice(about: &str, text: String) -> Notice {
    Notice { about: about.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InterfaceMatch;

    /// Ids of the pod's namespace in ours, and of our namespace in the pod's.
    const POD: i32 = 7;
    const HOME: i32 = 3;

    fn device(index: u32, name: &str, kind: Kind, lower: Option<u32>, lower_in: Option<i32>) -> Device {
        Device { index, name: name.to_owned(), ethernet: true, kind, lower, lower_in, ..Device::default() }
    }

    fn node() -> Vec<Device> {
        vec![
            device(2, "eth0", Kind::Other, None, None),
            device(3, "cali1", Kind::Veth, Some(10), Some(POD)),
            device(4, "vlan0123456789a", Kind::Veth, None, None),
            Device { ethernet: false, ..device(5, "tun0", Kind::Guest, None, None) },
        ]
    }

    fn roles(devices: &[Device]) -> Roles {
        Roles::of(devices, &InterfaceMatch::parse(&["cali+", "tun+"]).unwrap(), &BTreeSet::from([2]))
    }

    fn children_of(devices: &[Device], theirs: Vec<Device>, enforced: bool) -> Option<String> {
        let seen = Seen { devices, elsewhere: BTreeMap::from([(POD, theirs)]), ..Seen::default() };
        children(&seen, &roles(devices), enforced).map(|notice| notice.text)
    }

    /// A macvlan or ipvlan device on an uplink is reported, with the effect of --host-network-pods on it.
    #[test]
    fn child_of_an_uplink_is_reported() {
        let mut devices = node();
        devices.push(device(6, "mv0", Kind::Child, Some(2), None));
        let open = children_of(&devices, vec![], false).unwrap();
        assert!(open.starts_with("macvlan or ipvlan on an uplink: mv0. "), "{open}");
        assert!(open.contains("the node role; --host-network-pods=enforce prevents"), "{open}");
        let closed = children_of(&devices, vec![], true).unwrap();
        assert!(!closed.contains("the node role"), "{closed}");
    }

    #[test]
    fn child_of_another_device_is_not_reported() {
        let mut devices = node();
        devices.push(device(6, "mv0", Kind::Child, Some(3), None));
        devices.push(device(7, "mv1", Kind::Child, Some(2), Some(POD)));
        assert_eq!(children_of(&devices, vec![], false), None);
    }

    /// A macvlan or ipvlan device inside a pod is reported under the name of the pod's veth.
    #[test]
    fn child_inside_a_pod_is_reported_by_its_veth() {
        let end = || device(10, "eth0", Kind::Veth, Some(3), Some(HOME));
        let child = |lower_in| device(11, "\u{1b}[2J", Kind::Child, Some(2), lower_in);
        let found = children_of(&node(), vec![end(), child(Some(HOME))], false).unwrap();
        assert!(found.starts_with("macvlan or ipvlan on an uplink: one of the pod behind cali1. "), "{found}");
        for (theirs, what) in [
            (vec![end(), child(Some(8))], "it is on a device of a third namespace"),
            (vec![end(), child(None)], "it is on a device of the pod"),
            (vec![child(Some(HOME))], "the veth has just been replaced"),
        ] {
            assert_eq!(children_of(&node(), theirs, false), None, "{what}");
        }
    }

    #[test]
    fn unfit_device_is_reported_with_remedy() {
        let found: Vec<Notice> = unfit(&roles(&node())).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].text.starts_with("tun0 is matched"), "{found:?}");
        assert!(found[0].text.contains("no Ethernet header; exclude it with --host-interface=!tun0"), "{found:?}");
    }

    #[test]
    fn strict_mode_is_recognised_by_interface_names() {
        let found = |devices: &[Device]| strict_mode(&Seen { devices, ..Seen::default() }).map(|notice| notice.text);
        assert!(found(&node()).unwrap().ends_with("They are behind vlan0123456789a"));
        for (name, kind) in [
            ("vlan.eth.1", Kind::Other),
            ("vlan0123456789", Kind::Veth),
            ("vlan0123456789x", Kind::Veth),
            ("eni0123456789ab", Kind::Veth),
            ("vlan0123456789a", Kind::Other),
        ] {
            assert_eq!(found(&[device(9, name, kind, None, None)]), None, "{name}");
        }
    }

    /// The second veth of pods of an IPv6 cluster is reported unless `--host-interface` matches it.
    #[test]
    fn unmatched_ipv4_egress_veth_is_reported() {
        let found = |index| {
            let devices = &node();
            let seen = Seen { devices, egress_v4: BTreeSet::from([index]), ..Seen::default() };
            egress_v4(&seen, &roles(devices)).map(|notice| notice.text)
        };
        assert!(found(4).unwrap().ends_with("They are behind vlan0123456789a"));
        assert_eq!(found(3), None, "matched");
        assert_eq!(found(2), None, "no veth");
    }
}

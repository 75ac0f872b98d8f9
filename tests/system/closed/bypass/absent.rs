//! Cells that one of the columns does not have, each with the reason.

use anyhow::{Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

/// Cells that try both columns at once.
const BOTH: [&str; 3] =
    ["a_hundred_kills_in_a_row_under_load", "in_an_upgrade_that_is_cut_short", "in_the_middle_of_upgrades"];

/// Cells of one column, and why the other has none.
const ONE: [(&str, &str); 29] = [
    // A pod in its own network namespace.
    ("bridge_with_the_uplink_and_unmatched_ports", NO_VETH),
    ("filter_ahead_of_ours_redirects_to_the_uplink", NO_VETH),
    ("neighbour_on_the_bridge_that_decapsulates", "a packet that the neighbour sends is the neighbour's own"),
    ("imds_as_source", "imds_as_source_in_a_host_network_pod shows the result there"),
    ("imds_as_source_on_a_bridge_with_the_uplink", NO_VETH),
    ("imds_as_source_on_a_veth_made_without_an_agent", NO_VETH),
    ("a_veth_made_while_the_agent_is_dead", NO_VETH),
    ("a_vlan_device_on_the_pods_interface", NO_VETH),
    ("after_a_reboot_before_the_agent", "it is open: host_network_pod_is_open_before_the_agent_starts"),
    ("imds_on_the_pods_own_link", "the node's routes are its administrator's"),
    ("own_namespace_sockets_used_in_another_pod", "each of the `sockets_*` cells is one"),
    ("real_imds_answers_with_the_uplink_in_the_bridge", NO_VETH),
    ("real_imds_answers_with_the_uplink_matched", NO_VETH),
    ("the_backstops_link_is_detached_by_hand", "the backstop handles packets that arrive by an interface"),
    ("the_programs_links_are_detached_by_hand", NO_VETH),
    // A child of the uplink: closed under enforcement only, and then for the same reason as the node's network.
    ("ipvlan_l2", CHILD),
    ("ipvlan_l3", CHILD),
    ("ipvlan_l3s", CHILD),
    ("macvlan_bridge", CHILD),
    ("macvlan_private", CHILD),
    // A pod on the node's network.
    ("imds_as_source_in_a_host_network_pod", "imds_as_source is its counterpart in the other column"),
    ("host_network_pod_is_open_before_the_agent_starts", "closed: after_a_reboot_before_the_agent"),
    ("sockets_made_far_below_a_container", BY_INTERFACE),
    ("sockets_used_far_below_the_container", BY_INTERFACE),
    ("sockets_of_a_pod_used_in_another_pod", BY_INTERFACE),
    ("sockets_of_a_pod_used_outside_kubepods", BY_INTERFACE),
    (
        "the_agent_has_the_shipped_capabilities",
        "closed::programs loads the programs like this, and every cell uses the same ones",
    ),
    ("the_agent_serves", "each of routes:: shows it"),
    ("the_hooks_links_are_detached_by_hand", "the hooks are not in the way of pods behind a veth"),
];
const NO_VETH: &str = "a process on the node's network is behind no interface that a program could be attached to";
const CHILD: &str = "the pod has its own network namespace; on the node's network its counterpart is the uplink itself";
const BY_INTERFACE: &str = "behind a veth every packet is judged, whatever process sent it";

/// States that no cell can show to be closed, in which a pod on the node's network is open or the node answers the real
/// IMDS; each with its reason.
const OPEN: [(&str, &str); 5] = [
    (
        "after a reboot, before the agent starts",
        "the boot unit sets rules, which cannot distinguish a pod from the node; nor may it close all pods, because \
         some are exempt (the CNI's), and only the agent can identify them",
    ),
    (
        "the guard detached by hand, and a packet without connect()",
        "the guard is the only layer there: no other layer stops a packet until the agent attaches it again",
    ),
    (
        "the node's answer to a pod on its network that claims the address of the IMDS",
        "the answer is the node's own, and the request arrived by no interface of pods",
    ),
    (
        "the node's answer to a pod that claims the address of the IMDS, on a veth made while the agent is dead",
        "no program is attached yet, and no rule applies to a packet to the node's own address",
    ),
    ("a socket that was made outside kubepods and passed to a pod", "it belongs to the node, whatever process uses it"),
];

/// Returns the cells of this run, by the last part of their name, with their number of columns.
fn cells() -> Result<BTreeMap<String, usize>> {
    let listed = Command::new(env::current_exe()?).args(["--list", "--format", "terse", "bypass::"]).output()?;
    let mut cells = BTreeMap::new();
    for name in String::from_utf8(listed.stdout)?.lines().filter_map(|line| line.strip_suffix(": test")) {
        let last = name.rsplit("::").next().unwrap_or(name);
        *cells.entry(last.to_owned()).or_default() += 1;
    }
    cells.remove("cells_of_one_column_have_a_reason");
    Ok(cells)
}

#[test]
fn cells_of_one_column_have_a_reason() -> Result<()> {
    let cells = cells()?;
    let single: BTreeSet<&str> =
        cells.iter().filter(|(_, columns)| **columns == 1).map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<&str> = BOTH.into_iter().chain(ONE.iter().map(|(name, _)| *name)).collect();
    ensure!(single == listed, "without a reason: {:?}; no such cell: {:?}", &single - &listed, &listed - &single);
    println!("{} cells in both columns", cells.len() - ONE.len());
    for (cell, why) in ONE.iter().chain(&OPEN) {
        println!("{cell}: {why}");
    }
    Ok(())
}

//! What one of the columns does not have, and why: no cell is left out in silence.

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
    ("neighbour_on_the_bridge_that_decapsulates", "what the neighbour sends is the neighbour's own packet"),
    ("imds_as_source", "imds_as_source_in_a_host_network_pod says what becomes of it there"),
    ("imds_as_source_on_a_bridge_with_the_uplink", NO_VETH),
    ("imds_as_source_on_a_veth_made_without_an_agent", NO_VETH),
    ("a_veth_made_while_the_agent_is_dead", NO_VETH),
    ("a_vlan_device_on_the_pods_interface", NO_VETH),
    ("after_a_reboot_before_the_agent", "it is open: the same, with `_a_pod_on_the_nodes_network_is_open`"),
    ("imds_on_the_pods_own_link", "the node's routes are its administrator's"),
    ("own_namespace_sockets_used_in_another_pod", "each of `sockets_of_a_pod_*` is one"),
    ("real_imds_answers_with_the_uplink_in_the_bridge", NO_VETH),
    ("real_imds_answers_with_the_uplink_matched", NO_VETH),
    ("the_backstops_link_is_detached_by_hand", "the backstop sees packets that come in by an interface"),
    ("the_programs_links_are_detached_by_hand", NO_VETH),
    // A child of the uplink: closed under enforcement alone, and then for the reason that closes the node's network.
    ("ipvlan_l2", CHILD),
    ("ipvlan_l3", CHILD),
    ("ipvlan_l3s", CHILD),
    ("macvlan_bridge", CHILD),
    ("macvlan_private", CHILD),
    // A pod on the node's network.
    ("imds_as_source_in_a_host_network_pod", "imds_as_source is the other column's"),
    ("host_network_pod_is_open_before_the_agent_starts", "closed: after_a_reboot_before_the_agent"),
    ("sockets_made_far_below_a_container", BY_INTERFACE),
    ("sockets_used_far_below_the_container", BY_INTERFACE),
    ("sockets_of_a_pod_used_in_another_pod", BY_INTERFACE),
    ("sockets_of_a_pod_used_outside_kubepods", BY_INTERFACE),
    ("the_agent_has_the_shipped_capabilities", "programs:: loads them so, and every cell is the same program"),
    ("the_agent_serves", "each of routes:: shows it"),
    ("the_hooks_links_are_detached_by_hand", "the hooks are not in the way of pods behind a veth"),
];
const NO_VETH: &str = "a process on the node's network is behind no interface that a program could be at";
const CHILD: &str = "the pod has its own network namespace; on the node's network there is the uplink itself";
const BY_INTERFACE: &str = "behind a veth every packet is judged, whoever sent it";

/// What no cell can show to be closed: states in which a pod on the node's network is open, and where the node answers
/// the real service; each with its reason.
const OPEN: [(&str, &str); 5] = [
    (
        "after a reboot, before the agent",
        "the boot unit sets rules, and these cannot tell a pod from the node; nor may it close all pods, because some are \
         exempt (the CNI's), and only the agent knows them",
    ),
    (
        "the guard detached by hand, and no connect",
        "the guard is alone there: a packet without `connect` meets nothing else, until the agent puts it back",
    ),
    (
        "the node's answer to a pod on its network that says it is M",
        "the answer is the node's own, and what asked for it came by no interface that pods are behind",
    ),
    (
        "the node's answer to what says it is M, from a veth made while the agent is dead",
        "no program is there yet, and a packet to the node's own address comes past any rule",
    ),
    ("a socket that was made outside kubepods and handed in", "it is the node's, whoever uses it"),
];

/// The cells of this run, by their last name.
fn cells() -> Result<BTreeMap<String, usize>> {
    let listed = Command::new(env::current_exe()?).args(["--list", "--format", "terse", "bypass::"]).output()?;
    let mut cells = BTreeMap::new();
    for name in String::from_utf8(listed.stdout)?.lines().filter_map(|line| line.strip_suffix(": test")) {
        let last = name.rsplit("::").next().unwrap_or(name);
        *cells.entry(last.to_owned()).or_default() += 1;
    }
    cells.remove("what_one_column_does_not_have_is_said");
    Ok(cells)
}

#[test]
fn what_one_column_does_not_have_is_said() -> Result<()> {
    let cells = cells()?;
    let single: BTreeSet<&str> =
        cells.iter().filter(|(_, columns)| **columns == 1).map(|(name, _)| name.as_str()).collect();
    let said: BTreeSet<&str> = BOTH.into_iter().chain(ONE.iter().map(|(name, _)| *name)).collect();
    ensure!(single == said, "without a reason: {:?}; no such cell: {:?}", &single - &said, &said - &single);
    println!("{} cells of both columns", cells.len() - ONE.len());
    for (cell, why) in ONE.iter().chain(&OPEN) {
        println!("{cell}: {why}");
    }
    Ok(())
}

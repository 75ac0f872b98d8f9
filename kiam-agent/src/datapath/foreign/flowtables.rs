//! Flowtables on interfaces of pods. They run after our program and before the node's network stack, and forward the
//! packets of their connections regardless of the assigned socket and the fence. So the node is not ready while there
//! is one.

use super::netfilter::nft::{Flowtable, Nft};
use crate::datapath::node::roles::{PodSide, Roles};
use anyhow::bail;

/// Searches for flowtables on interfaces of pods. The error names each with the commands that delete it.
pub(crate) async fn check(nft: Option<&Nft>, roles: &Roles) -> anyhow::Result<()> {
    let Some(nft) = nft else { return Ok(()) };
    // A kernel without nf_tables has no flowtables.
    if nft.generation().await?.is_none() {
        return Ok(());
    }
    let problems = problems(&nft.flowtables().await?, roles);
    if problems.is_empty() { Ok(()) } else { bail!(problems.join("; ")) }
}

fn problems(flowtables: &[Flowtable], roles: &Roles) -> Vec<String> {
    flowtables.iter().filter_map(|flowtable| problem(flowtable, roles)).collect()
}

fn problem(flowtable: &Flowtable, roles: &Roles) -> Option<String> {
    let pods = roles.pod_sides.values().filter(|side| !side.is_probe());
    let on: Vec<&str> = pods.map(name).filter(|name| flowtable.is_on(name)).collect();
    if on.is_empty() {
        return None;
    }
    let Flowtable { family, table, name, .. } = flowtable;
    Some(format!(
        "the flowtable {name} of the nftables table {family} {table} is on {}: it forwards pods' packets past the \
         checks of the node, including those to the real IMDS. Delete the rules that contain `flow add @{name}`, then \
         run `nft delete flowtable {family} {table} {name}`",
        on.join(", ")
    ))
}

fn name(side: &PodSide) -> &str {
    &side.name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::InterfaceMatch,
        datapath::{
            foreign::netfilter::nft::Devices,
            node::{
                devices::{Device, Kind},
                roles::PROBE,
            },
        },
    };
    use std::collections::BTreeSet;

    fn roles() -> Roles {
        let names = [(2, "eth0"), (3, "cali1"), (4, PROBE)];
        let devices = names.map(|(index, name)| Device {
            index,
            name: name.to_owned(),
            ethernet: true,
            kind: Kind::Veth,
            ..Device::default()
        });
        Roles::of(&devices, &InterfaceMatch::parse(&["cali+"]).unwrap(), &BTreeSet::from([2]))
    }

    fn problems_on(devices: &[Devices]) -> Vec<String> {
        let (table, name) = ("fw".to_owned(), "fast".to_owned());
        problems(&[Flowtable { family: "inet", table, name, devices: devices.to_vec() }], &roles())
    }

    /// A flowtable on an interface of a pod is a problem; the text contains the command that deletes it.
    #[test]
    fn flowtable_on_a_pods_interface_is_a_problem() {
        let found = problems_on(&[Devices::Named("eth0".to_owned()), Devices::Named("cali1".to_owned())]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("flowtable fast of the nftables table inet fw is on cali1:"), "{found:?}");
        assert!(found[0].ends_with("`nft delete flowtable inet fw fast`"), "{found:?}");
    }

    #[test]
    fn flowtable_on_other_interfaces_is_no_problem() {
        assert_eq!(problems_on(&[Devices::Named("eth0".to_owned())]), Vec::<String>::new());
        assert_eq!(problems_on(&[Devices::Prefix("kiam".to_owned())]), Vec::<String>::new());
    }
}

//! Flowtables on interfaces that pods are behind. They come after our program and before the node's stack: what belongs
//! to a connection that they hold is sent on, whatever socket it carries and whatever the fence says. So one of them is
//! an incident, and holds readiness back.

use super::netfilter::nft::{Flowtable, Nft};
use crate::datapath::node::roles::{PodSide, Roles};
use anyhow::bail;

/// Looks for them.
pub(crate) async fn check(nft: Option<&Nft>, roles: &Roles) -> anyhow::Result<()> {
    let Some(nft) = nft else { return Ok(()) };
    // Without nf_tables there is nobody to ask for flowtables.
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
        "the flowtable {name} of the nftables table {family} {table} is on {}: it sends pods' packets on past the checks \
         of the node, those to the real metadata service among them. Delete the rules that say `flow add @{name}`, then \
         `nft delete flowtable {family} {table} {name}`",
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

    fn told(devices: &[Devices]) -> Vec<String> {
        let (table, name) = ("fw".to_owned(), "fast".to_owned());
        problems(&[Flowtable { family: "inet", table, name, devices: devices.to_vec() }], &roles())
    }

    /// A flowtable on an interface of a pod is a problem; the text contains the command that deletes it.
    #[test]
    fn flowtable_on_a_pods_interface_is_a_problem() {
        let told = told(&[Devices::Named("eth0".to_owned()), Devices::Named("cali1".to_owned())]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("flowtable fast of the nftables table inet fw is on cali1:"), "{told:?}");
        assert!(told[0].ends_with("`nft delete flowtable inet fw fast`"), "{told:?}");
    }

    #[test]
    fn flowtable_on_other_interfaces_is_no_problem() {
        assert_eq!(told(&[Devices::Named("eth0".to_owned())]), Vec::<String>::new());
        assert_eq!(told(&[Devices::Prefix("kiam".to_owned())]), Vec::<String>::new());
    }
}

//! The choices on this node: the effect of the flags, and the reasons. Features are probed for, versions are not
//! compared.

use crate::{
    config::{Attestation, HostNetworkPods, KubepodsAt, TcAttach},
    datapath::{
        Datapath,
        node::{family::Family, kubepods::Kubepods},
        parts::Parts,
        programs::{object::Object, tc::Hook},
    },
    report::Choice,
};
use kiam_common::abi::{SOCKOPT_HELPERS_NETNS, SOCKOPT_HELPERS_POD};

const AS_GIVEN: &str = "as given";

/// Returns the value in use of each setting, and the reason.
pub(super) fn choices(datapath: &Datapath) -> Vec<Choice> {
    let parts = &datapath.parts;
    let object = &parts.object;
    let mut choices = vec![
        redirect_choice(parts),
        host_network_choice(parts),
        tc_choice(parts),
        ipv6_choice(parts),
        attestation_choice(datapath),
        kubepods_choice(datapath),
        interface_of_lookup(object),
    ];
    if parts.config.mode.cgroup {
        choices.push(sockopt_choice(object));
    }
    choices
}

fn redirect_choice(parts: &Parts) -> Choice {
    let mode = parts.config.mode;
    let in_use = match (mode.tc, mode.cgroup) {
        (true, true) => "tc,cgroup",
        (true, false) => "tc",
        (false, _) => "cgroup",
    };
    if mode.auto {
        choice("--redirect", "auto", in_use, mode.why())
    } else {
        choice("--redirect", in_use, in_use, AS_GIVEN)
    }
}

fn host_network_choice(parts: &Parts) -> Choice {
    let (given, why) = match parts.config.host_network_pods {
        HostNetworkPods::Ignore => ("ignore", "as given: hostNetwork pods have the node role"),
        HostNetworkPods::Enforce => ("enforce", "as given: hostNetwork pods have their own roles, or none"),
    };
    choice("--host-network-pods", given, given, why)
}

fn tc_choice(parts: &Parts) -> Choice {
    let hook = match parts.attachments.hook() {
        Hook::Unknown => parts.guard.hook(),
        known => known,
    };
    let in_use = match hook {
        Hook::Unknown => "not known yet",
        Hook::Tcx => "tcx",
        Hook::Clsact => "clsact",
    };
    match (parts.config.tc, hook) {
        (TcAttach::Auto, Hook::Unknown) => {
            choice("--tc", "auto", in_use, "determined when the first interface is attached to")
        }
        (TcAttach::Auto, Hook::Tcx) => choice("--tc", "auto", in_use, "this kernel has TCX links"),
        (TcAttach::Auto, Hook::Clsact) => choice("--tc", "auto", in_use, "this kernel has no TCX links"),
        (TcAttach::Tcx | TcAttach::Clsact, _) => choice("--tc", in_use, in_use, AS_GIVEN),
    }
}

fn ipv6_choice(parts: &Parts) -> Choice {
    let (in_use, why) = if parts.fence.served().contains(&Family::V6) {
        ("served", "this kernel has IPv6")
    } else if parts.fence.families().contains(&Family::V6) {
        ("closed", "IPv6 is off on lo: pods get no answer from the IPv6 address of the metadata service")
    } else {
        ("none", "this kernel has no IPv6")
    };
    choice("--ipv6", "auto", in_use, why)
}

fn attestation_choice(datapath: &Datapath) -> Choice {
    let given = match datapath.parts.config.attestation {
        Attestation::Require => "require",
        Attestation::Prefer => "prefer",
        Attestation::Off => "off",
    };
    let (in_use, why) = match (datapath.parts.config.attestation, &datapath.kubepods) {
        (Attestation::Off, _) => ("by address", AS_GIVEN),
        (_, Some(_)) => ("by cgroup", "pods have cgroups of the version 2 hierarchy"),
        (Attestation::Prefer, None) => ("by address", "no kubepods cgroup in the version 2 hierarchy"),
        (Attestation::Require, None) => ("no pod", "no kubepods cgroup in the version 2 hierarchy"),
    };
    choice("--attestation", given, in_use, why)
}

fn kubepods_choice(datapath: &Datapath) -> Choice {
    let given = match &datapath.parts.config.kubepods {
        KubepodsAt::Auto => "auto".to_owned(),
        KubepodsAt::Path(path) => path.display().to_string(),
    };
    let (in_use, why) = match &datapath.kubepods {
        None => ("none".to_owned(), "the version 2 hierarchy has none"),
        Some(kubepods) => (kubepods.path().display().to_string(), populated(kubepods)),
    };
    choice("--kubepods-cgroup", &given, &in_use, why)
}

fn interface_of_lookup(object: &Object) -> Choice {
    let (in_use, why) = if object.sk_lookup_has_interface() {
        ("known", "sk_lookup programs can read the interface on this kernel")
    } else {
        (
            "unknown",
            "sk_lookup programs cannot read it on this kernel: a client that reuses a port too soon gets one reset",
        )
    };
    without_flag("the interface in sk_lookup", in_use, why)
}

fn sockopt_choice(object: &Object) -> Choice {
    let (in_use, why) = match object.sockopt_helpers() {
        SOCKOPT_HELPERS_POD => ("pods on the node's network", "programs can identify the calling pod on this kernel"),
        SOCKOPT_HELPERS_NETNS => {
            ("pods on the node's network, exempt or not", "programs cannot identify the calling pod on this kernel")
        }
        _ => ("all pods", "programs cannot identify the caller on this kernel"),
    };
    without_flag("refused PACKET_QDISC_BYPASS", in_use, why)
}

fn populated(kubepods: &Kubepods) -> &'static str {
    if kubepods.is_populated() { "it has processes" } else { "it has no process" }
}

fn choice(what: &str, given: &str, in_use: &str, why: &str) -> Choice {
    Choice { given: Some(given.to_owned()), ..without_flag(what, in_use, why) }
}

fn without_flag(what: &str, in_use: &str, why: &str) -> Choice {
    Choice { what: what.to_owned(), given: None, in_use: in_use.to_owned(), why: why.to_owned() }
}

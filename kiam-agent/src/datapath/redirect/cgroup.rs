//! The cgroup hooks: they redirect at `connect`, for pods that TC does not cover. [`hooks`] attaches the programs to
//! the kubepods cgroup. This module configures them for the node, and attaches them again when the kubelet creates or
//! replaces the cgroup.

mod hooks;

use crate::{
    config::{DatapathConfig, HostNetworkPods, RedirectMode},
    datapath::{
        node::kubepods::Kubepods,
        programs::{object::Object, pins::Pins},
    },
    sys::sockopt,
};
use anyhow::{Context as _, bail};
use kiam_common::abi::{FLAG_CGROUP_ONLY, FLAG_ENFORCE};
use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
};

/// Socket option that libc does not define (include/uapi/asm-generic/socket.h).
const SO_NETNS_COOKIE: i32 = 71;
/// A limit of the whole machine, which exists only in the kernel's first network namespace
/// (net/core/sysctl_net_core.c).
const FIRST_NETNS_ONLY: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Value instead of a cookie that makes the programs use that of the kernel's first network namespace.
const FIRST_NETNS: u64 = 0;

/// Returns the names of the hooks' programs.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    hooks::programs()
}

/// The hooks on this node.
pub(crate) struct Cgroup {
    mode: RedirectMode,
    flags: u32,
    netns: u64,
    hooks: Hooks,
}

/// State of the links, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
enum Hooks {
    /// Unknown: links of an earlier agent may exist.
    Unknown,
    /// Our programs are attached to the cgroup with this id.
    On(u64),
    /// There are no links.
    Off,
}

impl Cgroup {
    /// Loads the programs if the flags require them, and fails if this node does not support them. Attaches nothing.
    pub(crate) fn new(config: &DatapathConfig, object: &mut Object) -> anyhow::Result<Self> {
        let DatapathConfig { mode, host_network_pods, .. } = config;
        if mode.cgroup {
            Kubepods::find(&config.kubepods).context("--redirect, --host-network-pods: no cgroup hooks")?;
            hooks::load(object)?;
        }
        let enforce = if *host_network_pods == HostNetworkPods::Enforce { FLAG_ENFORCE } else { 0 };
        let cgroup_only = if mode.tc { 0 } else { FLAG_CGROUP_ONLY };
        Ok(Self {
            mode: *mode,
            flags: enforce | cgroup_only,
            netns: node_netns().context("reading the cookie of the network namespace")?,
            hooks: Hooks::Unknown,
        })
    }

    /// Drops what is known of the links: those on the cgroup may be another agent's.
    pub(crate) const fn forget(&mut self) {
        self.hooks = Hooks::Unknown;
    }

    /// Attaches the hooks to the current kubepods cgroup, or detaches them if the flags do not require them.
    pub(crate) fn sync(&mut self, object: &mut Object, pins: &Pins, kubepods: Option<&Kubepods>) -> anyhow::Result<()> {
        // Configured before the hooks run.
        object.configure(|config| (config.flags, config.netns) = (self.flags, self.netns))?;
        if !self.mode.cgroup {
            return self.detach(pins);
        }
        let Some(kubepods) = kubepods else {
            bail!(
                "there is no kubepods cgroup in the cgroup v2 hierarchy: the kubelet has not created it, or its pods \
                 are in cgroup v1, or at another path (--kubepods-cgroup); in a pod, mount the host's /sys/fs/cgroup"
            )
        };
        let ours = self.hooks == Hooks::On(kubepods.id());
        hooks::attach(object, pins, kubepods, !ours)?;
        if !ours {
            tracing::info!(cgroup = %kubepods.path().display(), "attached the cgroup hooks");
            self.hooks = Hooks::On(kubepods.id());
        }
        if !kubepods.is_populated() {
            bail!(
                "{} has no process, so this node's pods, including the agent's own, are elsewhere: in cgroup v1, or \
                 below another cgroup (--kubepods-cgroup)",
                kubepods.path().display()
            );
        }
        if self.netns == FIRST_NETNS && !Path::new(FIRST_NETNS_ONLY).exists() {
            bail!(
                "the hooks cannot recognise hostNetwork pods, which get no answer: this agent's network namespace is \
                 not the kernel's first one, and Linux before 5.14 identifies no other. Run the agent on the machine's \
                 own network, or use a newer kernel"
            );
        }
        Ok(())
    }

    fn detach(&mut self, pins: &Pins) -> anyhow::Result<()> {
        if self.hooks != Hooks::Off {
            hooks::detach(pins)?;
            self.hooks = Hooks::Off;
        }
        Ok(())
    }
}

/// Returns the cookie of this network namespace, by which the programs identify it. Linux before 5.14 does not provide
/// it; the programs then use the kernel's first namespace, which is the node's unless the node is itself a container.
fn node_netns() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut cookie = [0; size_of::<u64>()];
    match sockopt::get(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie) {
        Ok(_) => Ok(u64::from_ne_bytes(cookie)),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(FIRST_NETNS),
        Err(error) => Err(error),
    }
}

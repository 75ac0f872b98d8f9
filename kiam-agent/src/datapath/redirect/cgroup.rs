//! The cgroup hooks: the redirect by `connect`, for pods that TC does not see. [`hooks`] puts the programs on the
//! kubepods cgroup; here they are told what they must know of the node, and the cgroup is followed when kubelet makes it
//! later, or anew.

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

/// An option that libc does not know (include/uapi/asm-generic/socket.h).
const SO_NETNS_COOKIE: i32 = 71;
/// A limit of the whole machine's, which the kernel shows in its first network namespace alone
/// (net/core/sysctl_net_core.c).
const FIRST_NETNS_ONLY: &str = "/proc/sys/net/core/netdev_max_backlog";

/// In the place of a cookie: the programs ask for that of the kernel's first network namespace.
const FIRST_NETNS: u64 = 0;

/// The names of the hooks' programs.
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

/// What is known of the links.
#[derive(Debug, PartialEq, Eq)]
enum Hooks {
    /// Nothing: an earlier agent's may be there.
    Unknown,
    /// Ours are on the cgroup of this identifier.
    On(u64),
    /// There are none.
    Off,
}

impl Cgroup {
    /// Loads the programs if they are asked for; nothing is attached yet.
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
            netns: node_netns().context("asking for the cookie of the network namespace")?,
            hooks: Hooks::Unknown,
        })
    }

    /// What is on the cgroup may be another agent's.
    pub(crate) const fn forget(&mut self) {
        self.hooks = Hooks::Unknown;
    }

    /// Brings the hooks to where the kubepods cgroup is now.
    pub(crate) fn sync(&mut self, object: &mut Object, pins: &Pins, kubepods: Option<&Kubepods>) -> anyhow::Result<()> {
        // Told before the hooks run.
        object.configure(|config| (config.flags, config.netns) = (self.flags, self.netns))?;
        if !self.mode.cgroup {
            return self.take_off(pins);
        }
        let Some(kubepods) = kubepods else {
            bail!(
                "there is no kubepods cgroup in the cgroup v2 hierarchy: kubelet has not made it, or keeps pods in \
                 cgroup v1, or elsewhere (--kubepods-cgroup); in a pod, mount the host's /sys/fs/cgroup"
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
                "{} has no process, so this node's pods, the agent's own among them, are elsewhere: in cgroup v1, or \
                 below another cgroup (--kubepods-cgroup)",
                kubepods.path().display()
            );
        }
        if self.netns == FIRST_NETNS && !Path::new(FIRST_NETNS_ONLY).exists() {
            bail!(
                "the hooks take hostNetwork pods for others, and these get nothing: this agent's network namespace is not \
                 the kernel's first one, and Linux before 5.14 tells no other: run the agent on the machine's own network, \
                 or a newer kernel"
            );
        }
        Ok(())
    }

    fn take_off(&mut self, pins: &Pins) -> anyhow::Result<()> {
        if self.hooks != Hooks::Off {
            hooks::detach(pins)?;
            self.hooks = Hooks::Off;
        }
        Ok(())
    }
}

/// The cookie of this network namespace, by which programs know it. Before Linux 5.14 the kernel does not tell, and the
/// programs take its first namespace: the node's own, unless the node is itself in a container.
fn node_netns() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut cookie = [0; size_of::<u64>()];
    match sockopt::get(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie) {
        Ok(_) => Ok(u64::from_ne_bytes(cookie)),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(FIRST_NETNS),
        Err(error) => Err(error),
    }
}

//! Attribution: the decision which pod a connection belongs to. It belongs to the pod in whose cgroup it was opened, at
//! the peer's address. Where the kernel cannot report the cgroup (pods in version 1 hierarchies, or behind the kernel
//! of a virtual machine) it belongs to the pod at the peer's address, and it must arrive by the interface on which that
//! address was first seen.

use super::peer::{Arrival, Peer};
use crate::{
    attestation::{Origin, SocketOwner},
    config::Attestation,
    report::{Interface, InterfaceKind},
    source::{AttestedPod, Caller},
    vpc_cni,
};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Most addresses that can be first seen behind one interface.
const ADDRESSES_PER_INTERFACE_MAX: usize = 256;

/// The interfaces with pods behind them, by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces(HashMap<u32, Known>);

/// The facts about an interface that attribution needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    first_seen_ms: Option<u64>,
    kind: InterfaceKind,
}

impl Interfaces {
    /// Converts the parent's list.
    pub(crate) fn new(interfaces: &[Interface]) -> Self {
        let known = |interface: &Interface| Known { first_seen_ms: interface.first_seen_ms, kind: interface.kind };
        Self(interfaces.iter().map(|interface| (interface.index, known(interface))).collect())
    }
}

/// A reason why a connection has no known pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unattributable {
    /// No pod is behind its interface, or the kernel did not report the interface.
    Interface,
    /// There is no connection record.
    NoRecord,
    /// It was opened in a cgroup that does not belong to a pod.
    NotAPod,
    /// More than one port of its bridge may have sent it.
    Several,
    /// It was opened by a static pod, which the API server has only as a mirror pod.
    StaticPod,
    /// Its address was first seen behind another interface.
    Elsewhere,
    /// The parent did not answer in time.
    Untold,
}

/// Decides which pod a connection belongs to.
pub(crate) struct Attribution {
    mode: Attestation,
    interfaces: watch::Receiver<Arc<Interfaces>>,
    homes: Mutex<Homes>,
}

impl Attribution {
    /// `interfaces` follows the parent's messages.
    pub(crate) fn new(mode: Attestation, interfaces: watch::Receiver<Arc<Interfaces>>) -> Self {
        Self { mode, interfaces, homes: Mutex::default() }
    }

    /// Returns true if connections that arrive by an interface need an attestation.
    pub(crate) fn needs_attestation(&self) -> bool {
        self.mode != Attestation::Off
    }

    /// Returns the caller. Waits until the parent has reported the interface: the parent sends its message before the
    /// interface can carry a connection, but the message may still be on its way.
    pub(crate) async fn caller(&self, peer: &Peer, deadline: Instant) -> Result<Caller, Unattributable> {
        let (index, attestation) = match &peer.arrival {
            Arrival::Hook { pod, .. } if pod.is_static() => return Err(Unattributable::StaticPod),
            Arrival::Hook { pod, on_node_network } => {
                let address = if *on_node_network { None } else { vpc_cni::identifying(peer.address) };
                let pod = Some(AttestedPod { uid: *pod, must_match: true });
                return Ok(Caller { address, pod, interface_first_seen_ms: None });
            }
            Arrival::Interface { index, attestation } => (index.ok_or(Unattributable::Interface)?, attestation),
        };
        let known = self.known(index, deadline).await.ok_or(Unattributable::Interface)?;
        let pod_side = if self.needs_attestation() {
            let answer = timeout_at(deadline, attestation.answer()).await;
            let origin = answer.ok().flatten().ok_or(Unattributable::Untold)?;
            self.judge(index, known, origin, deadline).await?
        } else {
            PodSide { index, known, pod: None }
        };
        if pod_side.pod.is_none() && !self.is_home(peer.address, pod_side.index) {
            return Err(Unattributable::Elsewhere);
        }
        let PodSide { index: _, known, pod } = pod_side;
        let address = match pod {
            Some(_) => vpc_cni::identifying(peer.address),
            None => Some(peer.address),
        };
        // Without an address, only an answer that names this pod counts.
        let pod = pod.map(|pod| AttestedPod { must_match: pod.must_match || address.is_none(), ..pod });
        Ok(Caller { address, pod, interface_first_seen_ms: known.first_seen_ms })
    }

    /// Evaluates the record of a connection that arrived by the interface `index`.
    async fn judge(
        &self,
        index: u32,
        known: Known,
        origin: Origin,
        deadline: Instant,
    ) -> Result<PodSide, Unattributable> {
        let pod = match origin.owner {
            SocketOwner::Several => return Err(Unattributable::Several),
            SocketOwner::Pod(uid) if uid.is_static() => return Err(Unattributable::StaticPod),
            SocketOwner::Pod(uid) => Some(AttestedPod { uid, must_match: self.mode == Attestation::Require }),
            // Only the record contains the bridge port by which a connection arrived.
            SocketOwner::NoRecord if known.kind == InterfaceKind::Bridge => return Err(Unattributable::NoRecord),
            SocketOwner::NoRecord if self.requires_cgroup(known, origin) => return Err(Unattributable::NoRecord),
            SocketOwner::NoRecord => return Ok(PodSide { index, known, pod: None }),
            SocketOwner::NotAPod => None,
        };
        let index = origin.interface;
        let known = self.known(index, deadline).await.ok_or(Unattributable::Interface)?;
        if pod.is_none() && self.requires_cgroup(known, origin) {
            return Err(Unattributable::NotAPod);
        }
        Ok(PodSide { index, known, pod })
    }

    /// Returns true if a connection from this interface must have been opened in a pod's cgroup: because the kernel can
    /// report the cgroup, or because the mode requires it.
    fn requires_cgroup(&self, known: Known, origin: Origin) -> bool {
        self.mode == Attestation::Require || origin.kubepods && known.kind == InterfaceKind::Veth
    }

    async fn known(&self, index: u32, deadline: Instant) -> Option<Known> {
        let of = |interfaces: &Interfaces| interfaces.0.get(&index).copied();
        if let Some(known) = of(&self.interfaces.borrow()) {
            return Some(known);
        }
        let mut interfaces = self.interfaces.clone();
        let reported = interfaces.wait_for(|interfaces| of(interfaces).is_some());
        timeout_at(deadline, reported).await.ok()?.ok().and_then(|interfaces| of(&interfaces))
    }

    fn is_home(&self, address: IpAddr, interface: u32) -> bool {
        // No code panics while it holds this lock.
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        homes.is_home(address, interface, &self.interfaces.borrow())
    }
}

/// The interface with the caller's pod behind it, and the pod if it is attested.
struct PodSide {
    index: u32,
    known: Known,
    pod: Option<AttestedPod>,
}

/// The interface behind which each address was first seen, for as long as that interface exists.
#[derive(Debug, Default)]
struct Homes(HashMap<IpAddr, u32>);

impl Homes {
    fn is_home(&mut self, address: IpAddr, interface: u32, living: &Interfaces) -> bool {
        if let Some(&home) = self.0.get(&address)
            && living.0.contains_key(&home)
        {
            return home == interface;
        }
        // New addresses are rare, so this is the time to remove old ones.
        self.0.retain(|_, home| living.0.contains_key(home));
        let held = self.0.values().filter(|home| **home == interface).count();
        if held >= ADDRESSES_PER_INTERFACE_MAX {
            return false;
        }
        self.0.insert(address, interface);
        true
    }
}

#[cfg(test)]
mod tests;

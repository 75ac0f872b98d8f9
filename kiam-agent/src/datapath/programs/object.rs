//! The eBPF programs and their maps, embedded in this executable.

use super::{
    log, memlock,
    pins::{self, Pins},
};
use anyhow::{Context as _, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, SockMap},
    programs::{Program, ProgramError, ProgramType, SchedClassifier, SkLookup},
    sys::{BpfHelper, is_helper_supported},
};
use kiam_common::abi::{
    Address, Config, Counters, GLOBAL_INGRESS_IFINDEX, GLOBAL_SOCKOPT_HELPERS, MAP_CONFIG, MAP_EXEMPT, MAP_FLOWS,
    MAP_INTERFACES, MAP_LISTENERS, MAP_NODE_ADDRS, MAP_OWNER, MAP_PLACES, MAP_PORTS, MAP_RINGS, MAP_SOCKETS,
    MAP_STRAYS, Owner, PROG_GUARD, PROG_GUARD_IN, PROG_PROBE, PROG_PROBE_OUT, PROG_SK_LOOKUP, PROG_SLOT,
    PROG_TC_INGRESS, Port, SLOT_NODE_V4, SLOT_NODE_V6, SLOT_V4, SLOT_V6, SOCKOPT_HELPERS_NETNS, SOCKOPT_HELPERS_NONE,
    SOCKOPT_HELPERS_POD,
};
use std::{
    net::{IpAddr, TcpListener},
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};
use tokio::task::JoinSet;

/// The object that `cargo xtask build-ebpf` builds; `build.rs` ensures that it exists and is current.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KIAM_EBPF_OBJECT"));

/// Maps that are pinned, because they must outlive the process.
const PINNED: [&str; 11] = [
    MAP_LISTENERS,
    MAP_INTERFACES,
    MAP_PORTS,
    MAP_NODE_ADDRS,
    MAP_STRAYS,
    MAP_CONFIG,
    MAP_FLOWS,
    MAP_PLACES,
    MAP_RINGS,
    MAP_SOCKETS,
    MAP_EXEMPT,
];
/// The TC programs.
const CLASSIFIERS: [&str; 6] = [PROG_TC_INGRESS, PROG_GUARD, PROG_GUARD_IN, PROG_SLOT, PROG_PROBE, PROG_PROBE_OUT];

/// The loaded programs and maps.
pub(crate) struct Object {
    ebpf: Ebpf,
    /// Forwards the programs' log lines; ends with the object.
    log_lines: JoinSet<()>,
    /// True if `sk_lookup` programs can read the interface by which a packet arrived.
    sk_lookup_has_interface: bool,
    /// Helpers that `cgroup/setsockopt` programs may call: one of the `SOCKOPT_HELPERS_…`.
    sockopt_helpers: u8,
}

impl Object {
    /// Loads all programs except the cgroup hooks; maps that are pinned already are reused.
    pub(crate) fn load(root: &Path, pins: &Pins) -> anyhow::Result<Self> {
        Self::try_load(root, pins).map_err(memlock::explain)
    }

    fn try_load(root: &Path, pins: &Pins) -> anyhow::Result<Self> {
        let mut object = Self::load_for(root, pins, true)?;
        if let Err(error) = object.sk_lookup()?.load() {
            tracing::debug!("{PROG_SK_LOOKUP}: {error:#}");
            tracing::info!(
                "sk_lookup programs cannot read the interface on this kernel (they can since Linux 5.17): a client \
                 that reuses a port too soon gets one reset"
            );
            object = Self::load_for(root, pins, false)?;
            object.sk_lookup()?.load().with_context(|| format!("the kernel refused {PROG_SK_LOOKUP}"))?;
        }
        for name in CLASSIFIERS {
            object.classifier(name)?.load().with_context(|| format!("the kernel refused {name}"))?;
        }
        object.log_programs();
        log::follow(&mut object.ebpf, &mut object.log_lines)?;
        Ok(object)
    }

    fn load_for(root: &Path, pins: &Pins, sk_lookup_has_interface: bool) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_pin_path(MAP_OWNER, pins::owner(root));
        for map in PINNED {
            loader.map_pin_path(map, pins.folder().join(map));
        }
        // The verifier sees a constant: below debug it removes the log lines from the programs.
        let level = log::level();
        loader.override_global(aya_log::LEVEL, &level, true);
        let ingress_ifindex = u8::from(sk_lookup_has_interface);
        loader.override_global(GLOBAL_INGRESS_IFINDEX, &ingress_ifindex, true);
        let sockopt_helpers = sockopt_helpers().context("probing the helpers of cgroup/setsockopt programs")?;
        loader.override_global(GLOBAL_SOCKOPT_HELPERS, &sockopt_helpers, true);
        let ebpf = loader.load(OBJECT).context("creating the maps")?;
        Ok(Self { ebpf, log_lines: JoinSet::new(), sk_lookup_has_interface, sockopt_helpers })
    }

    /// Returns the loaded programs and their ids.
    pub(crate) fn loaded(&self) -> Vec<(&str, u32)> {
        let id = |(name, program): (_, &Program)| Some((name, program.info().ok()?.id()));
        self.ebpf.programs().filter_map(id).collect()
    }

    /// Returns whether `sk_lookup` programs can read the interface by which a packet arrived.
    pub(crate) const fn sk_lookup_has_interface(&self) -> bool {
        self.sk_lookup_has_interface
    }

    /// Returns the helpers that `cgroup/setsockopt` programs may call: one of the `SOCKOPT_HELPERS_…`.
    pub(crate) const fn sockopt_helpers(&self) -> u8 {
        self.sockopt_helpers
    }

    /// Loads a cgroup hook.
    pub(crate) fn load_hook(&mut self, name: &str) -> anyhow::Result<()> {
        let program = self.program(name)?;
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => bail!("{name} is not a cgroup hook"),
        };
        loaded.with_context(|| format!("the kernel refused {name}")).map_err(memlock::explain)?;
        log_program(name, program);
        Ok(())
    }

    /// Returns a cgroup hook, which must be loaded.
    pub(crate) fn hook(&mut self, name: &str) -> anyhow::Result<BorrowedFd<'_>> {
        Ok(self.program(name)?.fd()?.as_fd())
    }

    /// Returns the guard on the egress of uplinks.
    pub(crate) fn guard(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        self.classifier(PROG_GUARD)
    }

    /// Returns the guard on the ingress of uplinks.
    pub(crate) fn guard_in(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        self.classifier(PROG_GUARD_IN)
    }

    /// Returns the program for the interfaces of pods.
    pub(crate) fn tc_ingress(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        self.classifier(PROG_TC_INGRESS)
    }

    pub(crate) fn classifier(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        Ok(self.program(name)?.try_into()?)
    }

    /// Returns the backstop.
    pub(crate) fn sk_lookup(&mut self) -> anyhow::Result<&mut SkLookup> {
        Ok(self.program(PROG_SK_LOOKUP)?.try_into()?)
    }

    /// Puts each listening socket into the slot of its address, where it replaces the one of an earlier agent.
    pub(crate) fn put_listeners(&mut self, listeners: &[TcpListener]) -> anyhow::Result<()> {
        let mut slots: SockMap<_> = self.map_mut(MAP_LISTENERS)?.try_into()?;
        for listener in listeners {
            let slot = match listener.local_addr()?.ip() {
                IpAddr::V4(address) if address.is_loopback() => SLOT_V4,
                IpAddr::V6(address) if address.is_loopback() => SLOT_V6,
                IpAddr::V4(_) => SLOT_NODE_V4,
                IpAddr::V6(_) => SLOT_NODE_V6,
            };
            slots.set(slot, listener, 0)?;
        }
        Ok(())
    }

    /// Returns the map of the interfaces that the TC program is attached to, with their counters.
    pub(crate) fn interfaces_mut(&mut self) -> anyhow::Result<PerCpuHashMap<&mut MapData, u32, Counters>> {
        Ok(self.map_mut(MAP_INTERFACES)?.try_into()?)
    }

    /// Returns the same map as [`Self::interfaces_mut`], read-only.
    pub(crate) fn interfaces(&self) -> anyhow::Result<PerCpuHashMap<&MapData, u32, Counters>> {
        Ok(self.map(MAP_INTERFACES)?.try_into()?)
    }

    /// Returns the map of those interfaces that are ports of a bridge.
    pub(crate) fn ports(&mut self) -> anyhow::Result<HashMap<&mut MapData, u32, Port>> {
        Ok(self.map_mut(MAP_PORTS)?.try_into()?)
    }

    /// Changes the configuration that the programs read at run time. Writes only if something has changed.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) -> anyhow::Result<()> {
        let mut array: Array<_, Config> = self.map_mut(MAP_CONFIG)?.try_into()?;
        let known = array.get(&0, 0).context("reading the programs' configuration")?;
        let mut wanted = known;
        change(&mut wanted);
        if wanted == known { Ok(()) } else { array.set(0, wanted, 0).context("configuring the programs") }
    }

    /// Returns the map of the node's own addresses.
    pub(crate) fn node_addresses(&mut self) -> anyhow::Result<HashMap<&mut MapData, Address, u8>> {
        Ok(self.map_mut(MAP_NODE_ADDRS)?.try_into()?)
    }

    /// Returns the counters of the backstop, the guard and the hooks, which have no interface.
    pub(crate) fn strays(&self) -> anyhow::Result<PerCpuArray<&MapData, Counters>> {
        Ok(self.map(MAP_STRAYS)?.try_into()?)
    }

    /// Returns the map of the agent that owns the datapath.
    pub(crate) fn owner(&self) -> anyhow::Result<Array<&MapData, Owner>> {
        Ok(self.map(MAP_OWNER)?.try_into()?)
    }

    /// Returns the same map as [`Self::owner`], for writing.
    pub(crate) fn owner_mut(&mut self) -> anyhow::Result<Array<&mut MapData, Owner>> {
        Ok(self.map_mut(MAP_OWNER)?.try_into()?)
    }

    /// Pins maps again that have lost their pins to another agent. Returns their names.
    pub(crate) fn pin_missing(&self, pins: &Pins) -> anyhow::Result<Vec<&'static str>> {
        let mut missing = PINNED.to_vec();
        missing.retain(|name| !pins.folder().join(name).exists());
        for name in &missing {
            let path = pins.folder().join(name);
            self.map(name)?.pin(&path).with_context(|| format!("pinning {}", path.display()))?;
        }
        Ok(missing)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        self.ebpf.program_mut(name).ok_or_else(|| anyhow!("the eBPF object has no program {name}"))
    }

    pub(crate) fn map(&self, name: &str) -> anyhow::Result<&aya::maps::Map> {
        self.ebpf.map(name).ok_or_else(|| anyhow!("the eBPF object has no map {name}"))
    }

    pub(crate) fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).ok_or_else(|| anyhow!("the eBPF object has no map {name}"))
    }

    fn log_programs(&self) {
        for (name, program) in self.ebpf.programs() {
            log_program(name, program);
        }
    }
}

fn log_program(name: &str, program: &Program) {
    let Ok(info) = program.info() else { return };
    tracing::info!(program = name, id = info.id(), verified_instructions = info.verified_instruction_count(), "loaded");
}

/// Probes which helpers `cgroup/setsockopt` programs may call on this kernel.
fn sockopt_helpers() -> Result<u8, ProgramError> {
    let has = |helper| is_helper_supported(ProgramType::CgroupSockopt, helper);
    if !has(BpfHelper::BPF_FUNC_get_netns_cookie)? {
        return Ok(SOCKOPT_HELPERS_NONE);
    }
    let pod = has(BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id)?;
    Ok(if pod { SOCKOPT_HELPERS_POD } else { SOCKOPT_HELPERS_NETNS })
}

//! Connection records: the eBPF programs write them, one for each connection to the IMDS; the agent reads and removes
//! them.

use crate::datapath::programs::{optional, pins::Pins};
use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use kiam_common::abi::{
    FLOWS_PER_OWNER, Flow, FlowKey, MAP_FLOWS, MAP_PLACES, MAP_RINGS, MAX_FLOWS, MAX_OWNERS, PLACES_PER_PART, Places,
    Ring, RingPart,
};
use std::{collections::HashSet, time::Duration};

/// Age from which a record is removed. A connection is accepted moments after its first packet, or its client has given
/// up: no SDK waits longer than a second.
const RECORD_AGE_MAX: Duration = Duration::from_secs(10);

/// The maps of the records, opened from their pins.
pub(crate) struct ConnectionRecords {
    flows: HashMap<MapData, FlowKey, Flow>,
    places: HashMap<MapData, RingPart, Places>,
    rings: HashMap<MapData, u64, Ring>,
}

impl ConnectionRecords {
    /// Opens the maps.
    pub(crate) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let open = |name: &str| {
            let map = MapData::from_pin(pins.folder().join(name)).with_context(|| format!("opening the map {name}"))?;
            anyhow::Ok(Map::HashMap(map))
        };
        Ok(Self {
            flows: open(MAP_FLOWS)?.try_into()?,
            places: open(MAP_PLACES)?.try_into()?,
            rings: open(MAP_RINGS)?.try_into()?,
        })
    }

    /// Reads and removes the record of a connection, if there is one. Each record is read once; its place in the ring
    /// is reused later.
    pub(crate) fn take(&mut self, key: &FlowKey) -> anyhow::Result<Option<Flow>> {
        let Some(flow) = optional(self.flows.get(key, 0)).context("reading a record")? else { return Ok(None) };
        optional(self.flows.remove(key)).context("removing a record")?;
        Ok(Some(flow))
    }

    /// Removes all records of an interface.
    pub(crate) fn forget(&mut self, interface: u32) -> anyhow::Result<()> {
        for key in self.remove_ring(interface.into())? {
            optional(self.flows.remove(&key)).context("removing a record")?;
        }
        Ok(())
    }

    /// Removes records that were never read: those of half-open connections, and of connections that ended before they
    /// were accepted. Returns their number. Also removes the rings of owners without records: no event reports the end
    /// of a pod, and the rings grow with the number of its connections.
    pub(crate) fn sweep(&mut self, now: Duration) -> anyhow::Result<usize> {
        // The programs add and remove records meanwhile; the next sweep corrects what this list misses.
        let keys: Vec<FlowKey> = self.flows.keys().filter_map(Result::ok).take(MAX_FLOWS as usize).collect();
        let mut swept = 0;
        let mut owners = HashSet::new();
        for key in keys {
            let Some(flow) = optional(self.flows.get(&key, 0)).context("reading a record")? else { continue };
            if now.saturating_sub(Duration::from_nanos(flow.noted_ns)) > RECORD_AGE_MAX {
                optional(self.flows.remove(&key)).context("removing a record")?;
                swept += 1;
            } else {
                owners.insert(flow.owner);
            }
        }
        let rings: Vec<u64> = self.rings.keys().filter_map(Result::ok).take(MAX_OWNERS as usize).collect();
        for owner in rings.into_iter().filter(|owner| !owners.contains(owner)) {
            // A record that was added meanwhile is removed when it is too old.
            self.remove_ring(owner)?;
        }
        Ok(swept)
    }

    /// Removes a ring and returns the keys of the records in it, including former ones. Removes the ring before its
    /// parts, because a new ring begins with the first part.
    fn remove_ring(&mut self, owner: u64) -> anyhow::Result<Vec<FlowKey>> {
        let Some(ring) = optional(self.rings.get(&owner, 0)).context("reading a ring")? else { return Ok(Vec::new()) };
        optional(self.rings.remove(&owner)).context("removing a ring")?;
        let mut keys = Vec::new();
        for number in 0..ring.next.min(FLOWS_PER_OWNER).div_ceil(PLACES_PER_PART) {
            let part = RingPart { owner, number, pad: 0 };
            keys.extend(optional(self.places.get(&part, 0)).context("reading a part of a ring")?.into_iter().flatten());
            optional(self.places.remove(&part)).context("removing a part of a ring")?;
        }
        Ok(keys)
    }
}

//! The kernel programs' records of who opened a connection, as the agent reads them and clears up behind them.

use crate::datapath::programs::{optional, pins::Pins};
use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use kiam_common::abi::{
    FLOWS_PER_OWNER, Flow, FlowKey, MAP_FLOWS, MAP_PLACES, MAP_RINGS, MAX_FLOWS, MAX_OWNERS, PLACES_PER_PART, Places,
    Ring, RingPart,
};
use std::{collections::HashSet, time::Duration};

/// A connection is accepted within moments of its first packet, or its client has gone: the longest that an SDK waits
/// is a second.
const RECORD_AGE_MAX: Duration = Duration::from_secs(10);

/// The maps of records, opened by their pins.
pub(crate) struct ConnectionRecords {
    flows: HashMap<MapData, FlowKey, Flow>,
    places: HashMap<MapData, RingPart, Places>,
    rings: HashMap<MapData, u64, Ring>,
}

impl ConnectionRecords {
    /// Opens them.
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

    /// Reads the record of a connection, if there is one, and removes it: it is read once. Its place is taken by another
    /// in time.
    pub(crate) fn take(&mut self, key: &FlowKey) -> anyhow::Result<Option<Flow>> {
        let Some(flow) = optional(self.flows.get(key, 0)).context("reading a record")? else { return Ok(None) };
        optional(self.flows.remove(key)).context("removing a record")?;
        Ok(Some(flow))
    }

    /// Removes all that an interface has left.
    pub(crate) fn forget(&mut self, interface: u32) -> anyhow::Result<()> {
        for key in self.remove_ring(interface.into())? {
            optional(self.flows.remove(&key)).context("removing a record")?;
        }
        Ok(())
    }

    /// Removes the records that nobody has asked for: of half-open connections, and of those that ended before they
    /// were accepted. Returns how many they were. The rings of owners without records go, too: they grow with the
    /// connections that there have been, and nobody tells of a pod's end.
    pub(crate) fn sweep(&mut self, now: Duration) -> anyhow::Result<usize> {
        // Programs add and remove while we look: a list that is not quite right is mended by the next sweep.
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
            // A record that has come meanwhile goes with its age.
            self.remove_ring(owner)?;
        }
        Ok(swept)
    }

    /// Returns the records that have their places there, or had them. The ring first: a new one begins with the first part.
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

//! The programs' counters, summed over the CPUs.

use crate::{
    datapath::{programs::object::Object, redirect::interfaces::Attachments},
    report::PacketCount,
};
use kiam_common::abi::{Counters, REASONS, Reason};

/// Returns all packets counted so far, without reasons that never occurred. Logs a map that cannot be read, and leaves
/// out its packets.
pub(crate) fn read(object: &Object, attachments: &Attachments) -> Vec<PacketCount> {
    let mut packets = Vec::new();
    match object.interfaces() {
        Ok(map) => {
            let of_pods = |&(index, _): &(u32, _)| !attachments.is_probe(index);
            for (index, per_cpu) in map.iter().filter_map(Result::ok).filter(of_pods) {
                let name = attachments.name(index).unwrap_or_default();
                packets.extend(rows(name, per_cpu.iter()));
            }
        }
        Err(error) => tracing::warn!("cannot read the interfaces' counters: {error:#}"),
    }
    match object.strays().and_then(|map| Ok(map.get(&0, 0)?)) {
        Ok(per_cpu) => packets.extend(rows("", per_cpu.iter())),
        Err(error) => tracing::warn!("cannot read the backstop's counters: {error:#}"),
    }
    packets
}

fn rows<'a>(interface: &str, per_cpu: impl Iterator<Item = &'a Counters>) -> Vec<PacketCount> {
    let mut sums = [0_u64; REASONS];
    for counters in per_cpu {
        for (sum, packets) in sums.iter_mut().zip(counters.packets) {
            *sum = sum.saturating_add(packets);
        }
    }
    Reason::ALL
        .into_iter()
        .zip(sums)
        .filter(|&(_, packets)| packets > 0)
        .map(|(reason, packets)| PacketCount {
            interface: interface.to_owned(),
            reason: reason.name().to_owned(),
            packets,
        })
        .collect()
}

//! The proof: the packets that reached the fake of the real IMDS, by sender.

use super::super::{
    cast::Cast,
    report::{Row, Scene},
};
use anyhow::Result;
use kiam_tests::node::topology::Sender;

/// Number of packets at the fake IMDS, by sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    node: usize,
    pods: usize,
    other: usize,
}

/// Counts the packets so far, including those still in flight.
pub(super) fn count(cast: &Cast) -> Result<Count> {
    let canary = &cast.system.canary;
    canary.settle(&cast.system.topology.node)?;
    let of = |sender| canary.packets_of(sender).len();
    Ok(Count { node: of(Sender::Node), pods: of(Sender::Pod), other: of(Sender::Other) })
}

/// Reports the packet logs of both halves of the demo.
pub(super) fn play(without: Count, with: Count) -> Scene {
    let some =
        |who: &str, when: &str, packets: usize| Row::judged(who, when, "some packets", in_words(packets), packets > 0);
    let none = |who: &str, packets: usize| {
        Row::judged(who, "since kiam was started", "no packet", in_words(packets), packets == 0)
    };
    Scene {
        title: "The packet log of the metadata service",
        headings: ["sender", "when"],
        text: "The fake of the real metadata service records every packet. Since kiam was started, none came \
               from a pod, not even while the agent was dead or restarting. The node's own requests still get through."
            .to_owned(),
        rows: vec![
            some("pods", "without kiam", without.pods),
            none("pods", with.pods),
            none("others", with.other),
            some("node, agent", "since kiam was started", with.node),
        ],
    }
}

fn in_words(packets: usize) -> String {
    match packets {
        0 => "no packet".to_owned(),
        1 => "1 packet".to_owned(),
        packets => format!("{packets} packets"),
    }
}

//! The parent's metrics, from its last message: packets in the kernel, conditions, starts of the worker.

use crate::report::{Notice, Status};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::{collections::BTreeMap, fmt};
use tokio::sync::watch;

/// Collects the newest [`Status`] at every scrape. Series of removed interfaces disappear with them.
#[derive(Debug)]
pub(crate) struct Datapath(watch::Receiver<Status>);

impl Datapath {
    /// Returns a collector of the status in `status`.
    pub(crate) const fn new(status: watch::Receiver<Status>) -> Self {
        Self(status)
    }
}

impl Collector for Datapath {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Status { conditions, packets, repairs, notices, probes, worker_starts, fallback_answers } =
            self.0.borrow().clone();
        let help =
            "Packets to the metadata service by interface and outcome; no interface for backstop, guard and hooks";
        let mut family = encoder.encode_descriptor("kiam_agent_packets", help, None, MetricType::Counter)?;
        for packet in &packets {
            let labels = [("interface", packet.interface.as_str()), ("reason", packet.reason.as_str())];
            ConstCounter::new(packet.packets).encode(family.encode_family(&labels)?)?;
        }
        let help = "1 for each readiness condition that is met, 0 for one that is not";
        let mut family = encoder.encode_descriptor("kiam_agent_condition", help, None, MetricType::Gauge)?;
        for condition in &conditions {
            let met = ConstGauge::new(i64::from(condition.problem.is_none()));
            met.encode(family.encode_family(&[("condition", condition.name.as_str())])?)?;
        }
        let help = "Objects that something removed or changed, and the agent restored";
        let mut family = encoder.encode_descriptor("kiam_agent_repairs", help, None, MetricType::Counter)?;
        for (what, times) in &repairs {
            ConstCounter::new(*times).encode(family.encode_family(&[("what", what.as_str())])?)?;
        }
        let help = "Warnings for the operator that do not affect readiness, by subject; see kiam-agent status";
        let mut family = encoder.encode_descriptor("kiam_agent_notices", help, None, MetricType::Gauge)?;
        for (about, number) in by_subject(&notices) {
            ConstGauge::new(number).encode(family.encode_family(&[("about", about)])?)?;
        }
        let help = "1 when the last probe through the datapath was answered, 0 when it was not";
        let mut family = encoder.encode_descriptor("kiam_agent_probe_answered", help, None, MetricType::Gauge)?;
        for probe in &probes {
            let answered = ConstGauge::new(i64::from(probe.answered));
            answered.encode(family.encode_family(&[("family", probe.family.as_str())])?)?;
        }
        let starts = ConstCounter::new(worker_starts);
        let help = "Starts of the worker, the process that answers pods";
        starts.encode(encoder.encode_descriptor("kiam_agent_worker_starts", help, None, MetricType::Counter)?)?;
        let answers = ConstCounter::new(fallback_answers);
        let help = "Connections answered with a fixed 503 while no worker ran";
        answers.encode(encoder.encode_descriptor("kiam_agent_fallback_answers", help, None, MetricType::Counter)?)
    }
}

fn by_subject(notices: &[Notice]) -> BTreeMap<&str, i64> {
    let mut numbers = BTreeMap::new();
    for notice in notices {
        *numbers.entry(notice.about.as_str()).or_default() += 1;
    }
    numbers
}

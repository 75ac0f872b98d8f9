//! The reachability probe: a SYN to the IMDS that arrives by an interface of the agent, as a pod's SYN arrives by its
//! veth. The program on that interface assigns it to the listener, the kernel routes it and passes it through the
//! node's packet filter, and the listener's answer leaves by the same interface, where a program records and drops it.
//! No process accepts the connection; a reset removes it while it is half-open.
//!
//! The probe needs no namespace, no packet socket and no additional capability: a program that the agent runs itself
//! can make a packet arrive by any interface (`bpf_clone_redirect` under `BPF_PROG_TEST_RUN`). It does not detect rules
//! of the packet filter that are for certain other interfaces only.

mod device;
mod frame;

pub(crate) use device::{ensure as ensure_device, remove as remove_device};

use crate::{
    datapath::{
        node::{family::Family, roles::PROBE},
        programs::{
            object::Object,
            pins::{LinkOf, Pins},
            tc::{self, Hook, Place},
        },
    },
    files,
};
use anyhow::{Context as _, bail};
use aya::{
    maps::Array,
    programs::{TestRun as _, TestRunOptions},
};
use frame::{Frame, Segment};
use kiam_common::abi::{MAP_PROBES, PROG_PROBE, PROG_PROBE_OUT, PROG_SLOT, SLOT_V4, SLOT_V6};
use rtnetlink::Handle;
use std::{io, time::Duration};
use tokio::time::sleep;

/// Offset of `cb` in `struct __sk_buff` (include/uapi/linux/bpf.h).
const CONTEXT_CB: usize = 48;
/// Pauses before each check for an answer. As a rule the kernel sends the answer before the call that injects the probe
/// returns.
const ANSWER_PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(75),
    Duration::from_millis(150),
];

/// The probe of this node.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// Index of the interface that has the program which records answers.
    watched: Option<u32>,
}

/// Interface and families for probes.
#[derive(Debug)]
pub(crate) struct ProbeTarget {
    /// Index of the interface.
    pub(crate) index: u32,
    mac: [u8; 6],
    /// Families that have a route back for answers.
    pub(crate) families: Vec<Family>,
}

impl Probe {
    /// Attaches the program that records answers again at the next probe, because it may have been detached.
    pub(crate) fn forget(&mut self) {
        self.watched = None;
    }

    /// Returns whether the program that records answers is attached to this interface.
    pub(crate) fn watches(&self, index: u32) -> bool {
        self.watched == Some(index)
    }

    /// Sets up the route back, and attaches the program that records answers. Runs before each probe: without the route
    /// back an answer would leave by another route.
    pub(crate) async fn prepare(
        &mut self,
        netlink: &Handle,
        object: &mut Object,
        pins: &Pins,
        hook: Hook,
        families: &[Family],
    ) -> anyhow::Result<ProbeTarget> {
        let (index, mac) = device::find(netlink).await?;
        let families = device::route_back(netlink, index, families).await?;
        if self.watched != Some(index) {
            for other in pins.linked_interfaces(LinkOf::Probe)?.into_iter().filter(|&other| other != index) {
                files::remove_if_present(&pins.link(LinkOf::Probe, other))?;
            }
            tc::attach(object.classifier(PROG_PROBE_OUT)?, &Place::probe(pins, index), hook, PROBE)?;
            self.watched = Some(index);
        }
        Ok(ProbeTarget { index, mac, families })
    }
}

impl ProbeTarget {
    /// Sends a probe in each of these families, and returns those that were not answered.
    pub(crate) async fn send(&self, object: &mut Object, families: &[Family]) -> anyhow::Result<Vec<Family>> {
        let mut open = Vec::new();
        for &family in families {
            open.push(Frame::new(family, self.mac)?);
        }
        let frames = open.clone();
        for frame in &frames {
            inject(object, self.index, &frame.bytes(Segment::Syn)?)?;
        }
        for pause in ANSWER_PAUSES {
            sleep(pause).await;
            let mut lost = Vec::new();
            for frame in open {
                if answer(object, frame.family())? != frame.acknowledgement() {
                    lost.push(frame);
                }
            }
            open = lost;
            if open.is_empty() {
                break;
            }
        }
        // Removes the half-open connections, whether the probes were answered or not.
        for frame in &frames {
            inject(object, self.index, &frame.bytes(Segment::Reset)?)?;
        }
        Ok(open.into_iter().map(Frame::family).collect())
    }
}

/// Returns the port of the listening socket in a family's slot; 0: the slot is empty.
pub(crate) fn port_in_slot(object: &mut Object, family: Family) -> anyhow::Result<u16> {
    let frame = Frame::new(family, [0; 6])?.bytes(Segment::Syn)?;
    let port = run(object, PROG_SLOT, slot(family), &frame)?;
    u16::try_from(port).context("the port is out of range")
}

fn inject(object: &mut Object, index: u32, frame: &[u8]) -> anyhow::Result<()> {
    match run(object, PROG_PROBE, index, frame)?.cast_signed() {
        0 => Ok(()),
        errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)).context("sending a probe"),
        // `NET_RX_DROP`
        1.. => bail!("sending a probe: {PROBE} is down"),
    }
}

fn run(object: &mut Object, program: &str, argument: u32, frame: &[u8]) -> anyhow::Result<u32> {
    let mut context = vec![0; CONTEXT_CB];
    context.extend(argument.to_ne_bytes());
    let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
    let result = object.classifier(program)?.test_run(options).with_context(|| format!("running {program}"))?;
    Ok(result.return_value)
}

fn answer(object: &Object, family: Family) -> anyhow::Result<u32> {
    let answers: Array<_, u32> = object.map(MAP_PROBES)?.try_into()?;
    Ok(answers.get(&slot(family), 0)?)
}

const fn slot(family: Family) -> u32 {
    match family {
        Family::V4 => SLOT_V4,
        Family::V6 => SLOT_V6,
    }
}

//! A probe through the datapath: a SYN to M that arrives by an interface of the agent's own, as a pod's arrives by its
//! veth. The program on that interface hands it to the listener, the stack routes it and takes it through the node's
//! packet filter, and the listener's answer leaves by the same interface, where it is noted and dropped. Nobody accepts a
//! connection: a reset takes the half-open one away.
//!
//! No namespace, no packet socket and no capability is needed for it: the kernel lets a packet arrive by any interface
//! when a program that we run ourselves asks for it (`bpf_clone_redirect` under `BPF_PROG_TEST_RUN`). What it does not
//! show is what the packet filter does with certain interfaces only.

mod device;
mod frame;

pub(crate) use device::{ensure as ensure_device, remove as remove_device};

use crate::datapath::{
    node::{family::Family, roles::PROBE},
    programs::{
        object::Object,
        pins::{LinkOf, Pins},
        tc::{self, Hook, Place},
    },
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

/// Where `cb` begins in a `struct __sk_buff` (include/uapi/linux/bpf.h).
const CONTEXT_CB: usize = 48;
/// Before the looks for an answer. The kernel has sent it, as a rule, before it returns from taking the probe in.
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
    /// The interface whose egress is watched.
    watched: Option<u32>,
}

/// Where probes can be sent.
#[derive(Debug)]
pub(crate) struct ProbeTarget {
    /// The interface.
    pub(crate) index: u32,
    mac: [u8; 6],
    /// Those whose answers find their way back.
    pub(crate) families: Vec<Family>,
}

impl Probe {
    /// Watches anew at the next probe: the program that watches may have been taken off.
    pub(crate) fn forget(&mut self) {
        self.watched = None;
    }

    /// Whether the program that watches is on this interface.
    pub(crate) fn watches(&self, index: u32) -> bool {
        self.watched == Some(index)
    }

    /// Makes the way back ready, and watches what leaves by the interface. Before each probe: without the way back an
    /// answer would leave by whatever route there is.
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
                Pins::remove(&pins.link(LinkOf::Probe, other))?;
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
        // Whether they came about or not: nothing stays behind.
        for frame in &frames {
            inject(object, self.index, &frame.bytes(Segment::Reset)?)?;
        }
        Ok(open.into_iter().map(Frame::family).collect())
    }
}

/// The port of the listening socket in a family's slot; 0: there is none.
pub(crate) fn port_in_slot(object: &mut Object, family: Family) -> anyhow::Result<u16> {
    let frame = Frame::new(family, [0; 6])?.bytes(Segment::Syn)?;
    let port = run(object, PROG_SLOT, slot(family), &frame)?;
    u16::try_from(port).context("a port beyond its range")
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

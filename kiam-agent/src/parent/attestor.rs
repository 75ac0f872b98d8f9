//! Attests connections for the worker: finds the connection record of the kernel programs, from it the cgroup, and from
//! that the pod. Each worker has an attestor thread, which ends with it. The thread answers each question before it
//! reads the next, so nothing piles up, and all that it reads is a few numbers.

use crate::{
    attestation::{ANSWER_LEN, Answer, Origin, QUESTION_LEN, Question, SocketOwner},
    datapath::{
        node::kubepods::{Kubepods, Pods},
        programs::pins::Pins,
        redirect::connection_records::ConnectionRecords,
    },
    report::{Interface, InterfaceKind},
};
use anyhow::{Context as _, bail};
use kiam_common::abi::{Address, FlowKey};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    thread,
};
use tokio::sync::watch;

/// Starts attestor threads.
#[derive(Clone)]
pub(super) struct Attestor {
    pub(super) pins: Pins,
    pub(super) kubepods: watch::Receiver<Option<Kubepods>>,
    pub(super) interfaces: watch::Receiver<Vec<Interface>>,
}

impl Attestor {
    /// Starts a thread and returns the worker's end of its socket.
    pub(super) fn start(&self) -> anyhow::Result<OwnedFd> {
        // SEQPACKET keeps message boundaries and order, and has an end of file, which a datagram socket lacks.
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut thread = AttestorThread::open(self.clone())?;
        thread::Builder::new().name("attest".to_owned()).spawn(move || {
            if let Err(error) = thread.answer_all(&UnixDatagram::from(ours)) {
                // The worker reads the end of the socket and exits; the parent restarts it with a new attestor.
                tracing::error!("cannot attest connections: {error:#}; the worker will be restarted");
            }
        })?;
        Ok(theirs)
    }
}

struct AttestorThread {
    attestor: Attestor,
    records: ConnectionRecords,
    pods: Option<Pods>,
}

impl AttestorThread {
    fn open(attestor: Attestor) -> anyhow::Result<Self> {
        let records = ConnectionRecords::open(&attestor.pins)?;
        Ok(Self { attestor, records, pods: None })
    }

    fn answer_all(&mut self, socket: &UnixDatagram) -> anyhow::Result<()> {
        // One byte more than a question has, to detect a longer one.
        let mut bytes = [0; QUESTION_LEN + 1];
        loop {
            let len = socket.recv(&mut bytes).context("waiting for a question")?;
            if len == 0 {
                return Ok(());
            }
            let question = bytes.get(..len).and_then(Question::from_bytes);
            let Some(question) = question else { bail!("the worker sent {len} bytes instead of a question") };
            let answer: [u8; ANSWER_LEN] = Answer { id: question.id, origin: self.origin(&question)? }.to_bytes();
            if socket.send(&answer).is_err() {
                // The worker has ended.
                return Ok(());
            }
        }
    }

    fn origin(&mut self, question: &Question) -> anyhow::Result<Origin> {
        self.follow_kubepods();
        let mut hits = Vec::new();
        for interface in self.interfaces_behind(question.interface) {
            hits.extend(self.records.take(&key(question, interface))?.map(|record| (interface, record)));
        }
        let (interface, owner) = match hits.as_slice() {
            [] => (0, SocketOwner::NoRecord),
            [(interface, record)] => {
                let pod = match &mut self.pods {
                    Some(pods) => pods.of(record.ancestors).context("reading the cgroups of pods")?,
                    None => None,
                };
                (*interface, pod.map_or(SocketOwner::NotAPod, SocketOwner::Pod))
            }
            _ => (0, SocketOwner::Several),
        };
        Ok(Origin { interface, kubepods: self.pods.is_some(), owner })
    }

    /// Returns the interfaces on which a program can have recorded a connection that arrived by this one: the ports of a
    /// bridge, because a packet has lost its socket by the time it reaches the bridge.
    fn interfaces_behind(&self, interface: u32) -> Vec<u32> {
        let known = self.attestor.interfaces.borrow();
        let is_bridge = known.iter().any(|known| known.index == interface && known.kind == InterfaceKind::Bridge);
        if !is_bridge {
            return vec![interface];
        }
        known.iter().filter(|port| port.bridge == Some(interface)).map(|port| port.index).collect()
    }

    /// Follows the kubepods cgroup, which the kubelet may have created or replaced.
    fn follow_kubepods(&mut self) {
        let found = self.attestor.kubepods.borrow();
        if self.pods.as_ref().map(Pods::kubepods) != found.as_ref() {
            self.pods = found.clone().map(Pods::new);
        }
    }
}

fn key(question: &Question, interface: u32) -> FlowKey {
    FlowKey { address: Address { octets: question.address }, interface, port: question.port.to_be(), pad: 0 }
}

//! The time when each interface of the node appeared, recorded from netlink messages by a dedicated thread. The server
//! gets a pod's address moments after its interface is created; a late record would make the interface look younger
//! than the pod at its address, and the pod would be refused as a former holder of the address.

use crate::clock;
use anyhow::{Context as _, anyhow};
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
use rtnetlink::{Handle, MulticastGroup, sys::SocketAddr};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};
use tokio::sync::oneshot;

/// Milliseconds that are subtracted from the time when an interface was noticed. The notice comes after the creation,
/// the age is sent in whole milliseconds, and the server subtracts it a moment later: together this would make an
/// interface permanently look younger than its own pod. No address passes from one pod to another in so short a time:
/// the first pod would have to be reported and ended, and its network removed and set up for the other one.
const NOTICE_DELAY_MAX_MS: u64 = 25;

/// Milliseconds of `CLOCK_MONOTONIC` by interface index; `None`: older than the agent. One entry for each interface.
type FirstSeen = HashMap<u32, Option<u64>>;
type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// The time when each interface appeared.
#[derive(Clone, Default)]
pub(crate) struct InterfaceAges(Arc<Mutex<FirstSeen>>);

impl InterfaceAges {
    /// Starts to record. Interfaces that exist now count as older than the agent. The receiver gets the error that
    /// ended the thread.
    pub(crate) fn watch() -> anyhow::Result<(Self, oneshot::Receiver<anyhow::Error>)> {
        let interface_ages = Self::default();
        let (begun, begin) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let notes = interface_ages.clone();
        thread::Builder::new().name("births".to_owned()).spawn(move || {
            let error = notes.run(&begun).err().unwrap_or_else(|| anyhow!("the netlink socket was closed"));
            // The receiver is gone if the agent is ending.
            drop(end.send(error.context("following the interfaces")));
        })?;
        begin.recv().context("listing the interfaces")?;
        Ok((interface_ages, ended))
    }

    /// Returns the time when the interface appeared: milliseconds of `CLOCK_MONOTONIC`; `None`: before the agent. An
    /// interface without a record counts as new.
    pub(crate) fn of(&self, index: u32) -> Option<u64> {
        self.notes().get(&index).copied().unwrap_or_else(seen_now)
    }

    /// Returns the interfaces with a known time: index, and milliseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn known(&self) -> Vec<(u32, u64)> {
        self.notes().iter().filter_map(|(&index, &first_seen_ms)| Some((index, first_seen_ms?))).collect()
    }

    /// Adopts the records of another agent of this node for interfaces that are older than this agent.
    pub(crate) fn adopt(&self, known: Vec<(u32, u64)>) {
        let mut notes = self.notes();
        for (index, first_seen_ms) in known {
            if let Some(note @ None) = notes.get_mut(&index) {
                *note = Some(first_seen_ms);
            }
        }
    }

    fn run(&self, begun: &mpsc::Sender<()>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
            tokio::spawn(connection);
            // The subscription is active: an interface that is not in this list is new.
            self.note_all(&handle, None).await?;
            begun.send(()).context("the caller no longer waits for the list")?;
            self.follow(&handle, messages).await
        })
    }

    async fn follow(&self, handle: &Handle, mut messages: Messages) -> anyhow::Result<()> {
        while let Some((message, _)) = messages.next().await {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    self.notes().entry(link.header.index).or_insert_with(seen_now);
                }
                // In the family of bridges this message means that a port has left its bridge; the interface still
                // exists.
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                    if link.header.interface_family == AddressFamily::Unspec =>
                {
                    self.notes().remove(&link.header.index);
                }
                NetlinkPayload::Overrun(_) => self.note_all(handle, seen_now()).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Records the interfaces that have no record yet, and removes the records of those that are gone.
    async fn note_all(&self, handle: &Handle, first_seen_ms: Option<u64>) -> anyhow::Result<()> {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        let there: HashSet<u32> = links.iter().map(|link| link.header.index).collect();
        let mut notes = self.notes();
        notes.retain(|index, _| there.contains(index));
        for index in there {
            notes.entry(index).or_insert(first_seen_ms);
        }
        Ok(())
    }

    fn notes(&self) -> MutexGuard<'_, FirstSeen> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time that is recorded for an interface that is noticed now.
fn seen_now() -> Option<u64> {
    Some(clock::monotonic_ms().saturating_sub(NOTICE_DELAY_MAX_MS))
}

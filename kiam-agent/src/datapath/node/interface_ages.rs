//! When each interface of the node appeared: told by the kernel, and noted by a thread that does nothing else. A pod's
//! address is known to the server moments after its interface is made; a late note would make the interface look
//! younger than what the server knows of its pod, and the pod would be refused as its address's former owner.

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

/// How much earlier than it was heard of an interface counts as born. It was heard of after it was made, and its age is
/// told, in whole milliseconds, to a server that subtracts it a moment later: all of it makes an interface look younger
/// than its own pod, for good. No address changes hands in so little: the first pod would have to be reported, ended,
/// and its network taken down and given to another one.
const NOTICE_DELAY_MAX_MS: u64 = 25;

/// Milliseconds of `CLOCK_MONOTONIC` by interface index; `None`: older than the agent. As many as there are interfaces.
type FirstSeen = HashMap<u32, Option<u64>>;
type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// When each interface appeared.
#[derive(Clone, Default)]
pub(crate) struct InterfaceAges(Arc<Mutex<FirstSeen>>);

impl InterfaceAges {
    /// Starts to take notes; the interfaces that are there now are older than the agent. What is returned besides ends
    /// with the thread, and says why it ended.
    pub(crate) fn watch() -> anyhow::Result<(Self, oneshot::Receiver<anyhow::Error>)> {
        let interface_ages = Self::default();
        let (begun, begin) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let notes = interface_ages.clone();
        thread::Builder::new().name("births".to_owned()).spawn(move || {
            let error = notes.run(&begun).err().unwrap_or_else(|| anyhow!("the netlink socket was closed"));
            // Nobody waits for it any more: the agent is ending.
            drop(end.send(error.context("following the interfaces")));
        })?;
        begin.recv().context("listing the interfaces")?;
        Ok((interface_ages, ended))
    }

    /// When the interface appeared: milliseconds of `CLOCK_MONOTONIC`, `None` before the agent. One that was not heard
    /// of yet is new.
    pub(crate) fn of(&self, index: u32) -> Option<u64> {
        self.notes().get(&index).copied().unwrap_or_else(seen_now)
    }

    /// Those whose time is known: index, and milliseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn known(&self) -> Vec<(u32, u64)> {
        self.notes().iter().filter_map(|(&index, &first_seen_ms)| Some((index, first_seen_ms?))).collect()
    }

    /// Takes over what another agent of this node noted of interfaces that are older than this one.
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
            // Heard of from now on; so what is not in this list is new.
            self.note_all(&handle, None).await?;
            begun.send(()).context("nobody waits for the list")?;
            self.follow(&handle, messages).await
        })
    }

    async fn follow(&self, handle: &Handle, mut messages: Messages) -> anyhow::Result<()> {
        while let Some((message, _)) = messages.next().await {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    self.notes().entry(link.header.index).or_insert_with(seen_now);
                }
                // A bridge tells in its own family that a port has left: the interface lives on.
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

    /// Notes those that are there and not noted yet, and forgets those that are gone.
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
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When an interface was born that is heard of now.
fn seen_now() -> Option<u64> {
    Some(clock::monotonic_ms().saturating_sub(NOTICE_DELAY_MAX_MS))
}

//! What the server has seen of what Kubernetes was told; and what happens to its watch.
//!
//! A watch keeps the order of events. So a pod of the test's own, whose role is a number that grows, tells how far the
//! server is: it has seen all that Kubernetes was told before that number.

use super::world::{NAMESPACES, Place, Stay, World};
use anyhow::{Context as _, Result};
use kiam_common::proto::GetPodRoleRequest;
use kiam_tests::fakes::kube_api::PodObject;
use std::{cell::Cell, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

/// Between two looks at how far the server is.
const LOOK: Duration = Duration::from_millis(25);
/// How many stays may begin whenever the server is seen to be up to date: no more happens than it can follow.
const STAYS_AT_ONCE: usize = 11;
/// Between two ends of the watches by their time.
const WATCH_LIFE: Duration = Duration::from_millis(700);
/// How long the watches are mute before they turn out to be too far behind.
const MUTE: Duration = Duration::from_millis(150);
/// Where no other pod comes.
const SENTINEL: Place = Place(u16::MAX);

/// How far the server is.
#[derive(Debug)]
pub(super) struct Watch {
    /// The last number that Kubernetes was told.
    mark: Cell<u64>,
    /// The last number that the server has seen.
    seen: watch::Sender<u64>,
    /// The server cannot see what Kubernetes is told.
    blind: Cell<bool>,
    /// How often that was so.
    interruptions: Cell<u32>,
    /// Stays that may begin.
    stays: Semaphore,
}

impl Default for Watch {
    fn default() -> Self {
        let (mark, seen, blind, interruptions) = Default::default();
        Self { mark, seen, blind, interruptions, stays: Semaphore::new(0) }
    }
}

impl Watch {
    pub(super) fn mark(&self) -> u64 {
        self.mark.get()
    }

    /// Waits until another stay may begin.
    pub(super) async fn begin_stay(&self) -> Result<()> {
        self.stays.acquire().await?.forget();
        Ok(())
    }

    /// Whether the server has surely seen where Kubernetes says a pod is.
    pub(super) fn has_shown(&self, stay: &Stay) -> bool {
        stay.told().is_some_and(|told| told.mark < *self.seen.borrow())
    }

    /// Waits until it has.
    pub(super) async fn shows(&self, stay: &Stay) {
        let mut seen = self.seen.subscribe();
        // The sender lives as long as we do: an error cannot come.
        drop(seen.wait_for(|_| self.has_shown(stay)).await);
    }

    /// The same twice: the server saw all the time what Kubernetes was told. `None`: it does not.
    pub(super) fn sight(&self) -> Option<u32> {
        (!self.blind.get()).then(|| self.interruptions.get())
    }
}

/// Follows how far the server is, for ever.
pub(super) async fn sentinel(world: &World) -> Result<()> {
    let (v4, v6) = SENTINEL.addresses();
    loop {
        let mark = world.watch.mark.get() + 1;
        world.watch.mark.set(mark);
        world.kube.put_pod(&PodObject::running(NAMESPACES[0], "sentinel", Some(&mark.to_string()), v4, v6));
        while *world.watch.seen.borrow() < mark {
            sleep(LOOK).await;
            look(world, v4.to_string()).await?;
            if world.watch.blind.get() {
                break;
            }
        }
        world.watch.stays.add_permits(STAYS_AT_ONCE);
    }
}

async fn look(world: &World, ip: String) -> Result<()> {
    // At the beginning it is not known.
    if let Ok(answer) = world.rpc.clone().get_pod_role(GetPodRoleRequest { ip, caller: None }).await {
        let seen = answer.into_inner().name.parse().context("the role of the sentinel")?;
        world.watch.seen.send_replace(seen);
    }
    Ok(())
}

/// What an API server does to its watches: it ends them at their time, and tells one that is too far behind to list anew.
pub(super) async fn trouble(world: &World) {
    let mut relists = [0.3, 0.7].into_iter().peekable();
    loop {
        sleep(WATCH_LIFE).await;
        match relists.next_if(|due| *due <= world.progress()) {
            Some(_) => fall_behind(world).await,
            None => world.kube.end_watches(),
        }
    }
}

async fn fall_behind(world: &World) {
    let watch = &world.watch;
    watch.blind.set(true);
    watch.interruptions.set(watch.interruptions.get() + 1);
    world.kube.hold_watch_back(true);
    sleep(MUTE).await;
    world.kube.compact();
    world.kube.hold_watch_back(false);
    let back = watch.mark.get();
    let mut seen = watch.seen.subscribe();
    // The sender lives as long as we do: an error cannot come.
    drop(seen.wait_for(|seen| back < *seen).await);
    watch.blind.set(false);
}

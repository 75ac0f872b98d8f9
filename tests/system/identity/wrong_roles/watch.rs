//! How much of Kubernetes' reports the server has seen, and disturbances of its watch.
//!
//! A watch keeps the order of events. So the role of a pod of the test's own, a growing number, shows the server's
//! progress: it has seen everything that Kubernetes reported before that number.

use super::world::{NAMESPACES, Place, Stay, World};
use anyhow::{Context as _, Result};
use kiam_common::proto::GetPodRoleRequest;
use kiam_tests::fakes::kube_api::PodObject;
use std::{cell::Cell, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

/// Pause between two checks of the server's progress.
const LOOK: Duration = Duration::from_millis(25);
/// Stays that may begin whenever the server is up to date, so that it can follow.
const STAYS_AT_ONCE: usize = 11;
/// Time between two ends of the watches by timeout.
const WATCH_LIFE: Duration = Duration::from_millis(700);
/// Time the watches are mute before they turn out to be too far behind.
const MUTE: Duration = Duration::from_millis(150);
/// Place of no other pod.
const SENTINEL: Place = Place(u16::MAX);

/// Progress of the server.
#[derive(Debug)]
pub(super) struct Watch {
    /// Last number reported to Kubernetes.
    mark: Cell<u64>,
    /// Last number that the server has seen.
    seen: watch::Sender<u64>,
    /// True while the server's watches of Kubernetes are interrupted.
    blind: Cell<bool>,
    /// Number of interruptions.
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

    /// Returns whether the server has certainly seen the report about a stay.
    pub(super) fn has_shown(&self, stay: &Stay) -> bool {
        stay.report().is_some_and(|report| report.mark < *self.seen.borrow())
    }

    /// Waits until the server has seen it.
    pub(super) async fn shows(&self, stay: &Stay) {
        let mut seen = self.seen.subscribe();
        // The sender lives as long as `self`, so no error can occur.
        drop(seen.wait_for(|_| self.has_shown(stay)).await);
    }

    /// Returns the same number twice if the server was not cut off in between; `None` while it is.
    pub(super) fn sight(&self) -> Option<u32> {
        (!self.blind.get()).then(|| self.interruptions.get())
    }
}

/// Tracks the server's progress, endlessly.
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
    // At the beginning the sentinel is unknown.
    if let Ok(answer) = world.rpc.clone().get_pod_role(GetPodRoleRequest { ip, caller: None }).await {
        let seen = answer.into_inner().name.parse().context("the role of the sentinel")?;
        world.watch.seen.send_replace(seen);
    }
    Ok(())
}

/// Disturbs the watches as an API server does: ends them at their timeout, and makes one that is too far behind list
/// again.
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
    // The sender lives as long as `watch`, so no error can occur.
    drop(seen.wait_for(|seen| back < *seen).await);
    watch.blind.set(false);
}

//! Removes connection records that no attestation has taken, in a thread of its own: reading many takes a while.

use crate::{
    clock,
    datapath::{programs::pins::Pins, redirect::connection_records::ConnectionRecords},
};
use std::{thread, time::Duration};
use tokio::sync::oneshot;

/// Time between sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the thread. It ends when the returned receiver is dropped, and sends an error if it ends earlier.
pub(super) fn start(pins: &Pins) -> anyhow::Result<oneshot::Receiver<anyhow::Error>> {
    let mut flows = ConnectionRecords::open(pins)?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("sweep".to_owned()).spawn(move || {
        while !end.is_closed() {
            thread::sleep(SWEEP_INTERVAL);
            match flows.sweep(Duration::from_millis(clock::monotonic_ms())) {
                Ok(0) => {}
                Ok(swept) => tracing::debug!(swept, "removed records of connections that were never accepted"),
                Err(error) => {
                    // Sending fails if the agent is ending.
                    drop(end.send(error.context("sweeping connection records")));
                    return;
                }
            }
        }
    })?;
    Ok(ended)
}

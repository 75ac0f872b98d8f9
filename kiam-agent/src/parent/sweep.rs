//! Clears up records that nobody asks for, by a thread of its own: many of them take a while to look at.

use crate::{
    clock,
    datapath::{programs::pins::Pins, redirect::connection_records::ConnectionRecords},
};
use std::{thread, time::Duration};
use tokio::sync::oneshot;

/// How often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Starts the thread, which ends when what is returned is dropped. That ends with it, and says why it ended.
///
/// # Errors
/// The kernel's.
pub(super) fn start(pins: &Pins) -> anyhow::Result<oneshot::Receiver<anyhow::Error>> {
    let mut flows = ConnectionRecords::open(pins)?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("sweep".to_owned()).spawn(move || {
        while !end.is_closed() {
            thread::sleep(SWEEP_INTERVAL);
            match flows.sweep(Duration::from_millis(clock::monotonic_ms())) {
                Ok(0) => {}
                Ok(swept) => tracing::debug!(swept, "records of connections that were never accepted"),
                Err(error) => {
                    // Nobody waits for it any more: the agent is ending.
                    drop(end.send(error.context("clearing up records")));
                    return;
                }
            }
        }
    })?;
    Ok(ended)
}

//! Debug lines of the eBPF programs in the agent's log. Only at `--level=debug`: otherwise the programs are loaded
//! without.

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use std::time::Duration;
use tokio::{task::JoinSet, time::interval};

/// Levels of aya-log (aya-log-common): off, and everything up to debug.
const LEVEL_OFF: u8 = 0;
const LEVEL_DEBUG: u8 = 4;
/// Interval of reading the lines: the ring buffer holds 128 KiB of them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the level that the programs are loaded with.
pub(crate) fn level() -> u8 {
    if tracing::enabled!(tracing::Level::DEBUG) { LEVEL_DEBUG } else { LEVEL_OFF }
}

/// Forwards the lines until `tasks` is dropped.
pub(crate) fn follow(ebpf: &mut Ebpf, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    if level() == LEVEL_OFF {
        return Ok(());
    }
    let mut logger = EbpfLogger::init(ebpf).context("opening the programs' log")?;
    tasks.spawn(async move {
        let mut flush = interval(FLUSH_INTERVAL);
        loop {
            flush.tick().await;
            logger.flush();
        }
    });
    Ok(())
}

//! The programs' own debug lines, in the agent's log. Only at `--level=debug`: below it the programs carry none.

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Levels of aya-log (aya-log-common): none, and all up to debug.
const OFF: u8 = 0;
const DEBUG: u8 = 4;

/// The level that the programs are loaded with.
pub(super) fn level() -> u8 {
    if tracing::enabled!(tracing::Level::DEBUG) { DEBUG } else { OFF }
}

/// Passes the lines on as long as the agent runs.
///
/// # Errors
/// The object carries no log.
pub(super) fn follow(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    if level() == OFF {
        return Ok(());
    }
    let logger = EbpfLogger::init(ebpf).context("opening the programs' log")?;
    let mut logger = AsyncFd::register(logger).context("watching the programs' log")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

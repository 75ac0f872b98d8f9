//! Waiting for something to become true: asked again and again until it holds or the time is over, never slept for.

use anyhow::{Context as _, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two tries, at least.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Between two tries, at most.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Tries until it succeeds.
///
/// # Errors
/// The last one, named after `what`, when `patience` is over.
pub fn eventually<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let attempted = Instant::now();
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > patience => {
                return Err(error).with_context(|| format!("not within {patience:?}: {what}"));
            }
            // What it waits for may need the processor that a costly try takes: half of the time is its.
            Err(_) => thread::sleep(attempted.elapsed().clamp(PAUSE_MIN, PAUSE_MAX)),
        }
    }
}

/// Tries for the whole time, and fails as soon as it does not hold.
///
/// # Errors
/// The first one, named after `what`.
pub fn throughout(what: &str, duration: Duration, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        attempt().with_context(|| format!("after {:?}: {what}", start.elapsed()))?;
        thread::sleep(PAUSE_MIN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn it_tries_until_it_holds() {
        let mut tries = 0;
        let value = eventually("three", Duration::from_secs(5), || {
            tries += 1;
            if tries < 3 { bail!("{tries}") } else { Ok(tries) }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn it_names_what_did_not_come_true() {
        let error = eventually::<()>("the moon", Duration::from_millis(1), || bail!("still up")).unwrap_err();
        assert!(format!("{error:#}").ends_with("the moon: still up"), "{error:#}");
    }
}

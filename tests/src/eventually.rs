//! Waiting with a deadline: a condition is tried again and again until it holds or the deadline has passed.

use anyhow::{Context as _, Result};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Shortest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Tries until the attempt succeeds. Fails with the last error, with `what` as context, when `patience` is over.
pub fn eventually<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let attempted = Instant::now();
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > patience => {
                return Err(error).with_context(|| format!("not within {patience:?}: {what}"));
            }
            // The awaited process may need the CPU that a costly try takes: half of the time is left to it.
            Err(_) => thread::sleep(attempted.elapsed().clamp(PAUSE_MIN, PAUSE_MAX)),
        }
    }
}

/// Tries for the whole duration. Fails with the first error, with `what` as context.
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
    fn tries_until_the_condition_holds() {
        let mut tries = 0;
        let value = eventually("three", Duration::from_secs(5), || {
            tries += 1;
            if tries < 3 { bail!("{tries}") } else { Ok(tries) }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn names_the_condition_that_was_not_met() {
        let error = eventually::<()>("the moon", Duration::from_millis(1), || bail!("still up")).unwrap_err();
        assert!(format!("{error:#}").ends_with("the moon: still up"), "{error:#}");
    }
}

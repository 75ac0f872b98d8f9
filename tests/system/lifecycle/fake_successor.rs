//! A successor as seen by the old agent: the messages that it sends, and the state that it leaves when it is killed.

use anyhow::{Result, ensure};
use kiam_tests::system::{SOON, System};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
};

/// A successor that has announced itself. Dropping it closes its connection.
pub(crate) struct FakeSuccessor {
    wire: BufReader<UnixStream>,
}

impl FakeSuccessor {
    /// Announces itself to the agent that serves, and is accepted.
    pub(crate) fn announce(system: &System) -> Result<Self> {
        let stream = UnixStream::connect(system.folder().join("run/agent.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        let mut successor = Self { wire: BufReader::new(stream) };
        successor.send(r#"{"TakeOver":{"version":"0","layout":"v1","pid":1}}"#)?;
        successor.expect("Welcome")?;
        Ok(successor)
    }

    /// Makes the old agent stop repairing. It now waits for this one.
    pub(crate) fn take(&mut self) -> Result<()> {
        self.send("\"Take\"")?;
        self.expect("Given")
    }

    fn send(&mut self, message: &str) -> Result<()> {
        Ok(self.wire.get_mut().write_all(format!("{{\"protocol\":1,\"say\":{message}}}\n").as_bytes())?)
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.wire.read_line(&mut line)?;
        ensure!(line.contains(expected), "{line:?} instead of {expected}");
        Ok(())
    }
}

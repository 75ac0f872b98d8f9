//! A new agent as far as the old one can see it: what it says, and what it leaves when it is killed.

use anyhow::{Result, ensure};
use kiam_tests::system::{SOON, System};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
};

/// One that has asked. Dropped, it is gone.
pub(crate) struct Newcomer {
    wire: BufReader<UnixStream>,
}

impl Newcomer {
    /// Asks the agent that serves, and is welcome.
    pub(crate) fn ask(system: &System) -> Result<Self> {
        let stream = UnixStream::connect(system.folder().join("run/agent.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        let mut newcomer = Self { wire: BufReader::new(stream) };
        newcomer.say(r#"{"TakeOver":{"version":"0","layout":"v1","pid":1}}"#)?;
        newcomer.hear("Welcome")?;
        Ok(newcomer)
    }

    /// Has the old one stop repairing. It waits for this one now.
    pub(crate) fn take(&mut self) -> Result<()> {
        self.say("\"Take\"")?;
        self.hear("Given")
    }

    fn say(&mut self, say: &str) -> Result<()> {
        Ok(self.wire.get_mut().write_all(format!("{{\"protocol\":1,\"say\":{say}}}\n").as_bytes())?)
    }

    fn hear(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.wire.read_line(&mut line)?;
        ensure!(line.contains(expected), "{line:?} instead of {expected}");
        Ok(())
    }
}

//! What asks M from a pod and never stops.

use crate::eventually::eventually;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long the probe may take to end: one attempt for each family, of five seconds each, and a busy machine.
const END: Duration = Duration::from_secs(20);

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// M's address.
    pub m: IpAddr,
    /// What it got.
    pub got: Got,
}

/// What an attempt got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// Credentials.
    Credentials {
        /// The role's name in the list.
        role: String,
        /// The access key's id.
        access_key_id: String,
    },
    /// An HTTP status other than 200.
    Refused(u16),
    /// Nothing, and Python's name of the error.
    Nothing(String),
}

/// A probe in a pod: it asks until it is ended.
#[derive(Debug)]
pub struct Probe {
    kubectl: Child,
    log: PathBuf,
    /// Lines that were handed out.
    seen: usize,
}

impl Probe {
    pub(super) fn start(mut kubectl: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let kubectl = kubectl.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { kubectl: kubectl.context("start kubectl")?, log, seen: 0 })
    }

    /// The attempts since the last call.
    ///
    /// # Errors
    /// The probe ended, or wrote something else.
    pub fn news(&mut self) -> Result<Vec<Attempt>> {
        ensure!(self.kubectl.try_wait()?.is_none(), "the probe ended\n{}", self.log());
        let log = self.log();
        // The last line may be unfinished.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let news = whole.lines().skip(self.seen).map(parse).collect::<Result<Vec<_>>>()?;
        self.seen += news.len();
        Ok(news)
    }

    /// Ends it. Nothing of it is under way when this returns.
    ///
    /// # Errors
    /// It doesn't end.
    pub fn end(mut self) -> Result<()> {
        // The end of its standard input. Ending kubectl instead would leave the probe in the pod alone.
        drop(self.kubectl.stdin.take());
        eventually("the probe ends", END, || {
            ensure!(self.kubectl.try_wait()?.is_some(), "it asks on\n{}", self.log());
            Ok(())
        })
    }

    /// All that it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Ended already, or a trial that failed: then the pod's probe ends with its pod.
        drop(self.kubectl.kill());
        if let Err(error) = self.kubectl.wait() {
            eprintln!("wait for a probe: {error}");
        }
    }
}

fn parse(line: &str) -> Result<Attempt> {
    let words: Vec<&str> = line.split(' ').collect();
    let [m, first, second] = words[..] else { bail!("the probe wrote {line:?}") };
    let got = match first {
        "-" => Got::Nothing(second.to_owned()),
        "HTTP" => Got::Refused(second.parse()?),
        role => Got::Credentials { role: role.to_owned(), access_key_id: second.to_owned() },
    };
    Ok(Attempt { m: m.parse()?, got })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_s_lines_are_understood() {
        let got = |line| parse(line).unwrap().got;
        assert_eq!(got("169.254.169.254 HTTP 503"), Got::Refused(503));
        assert_eq!(got("fd00:ec2::254 - TimeoutError"), Got::Nothing("TimeoutError".to_owned()));
        let credentials = Got::Credentials { role: "a".to_owned(), access_key_id: "ASIA".to_owned() };
        assert_eq!(got("169.254.169.254 a ASIA"), credentials);
        assert!(parse("Traceback (most recent call last):").is_err());
    }
}

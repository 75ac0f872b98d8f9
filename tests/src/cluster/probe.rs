//! A probe in a pod that sends requests to the IMDS until it is ended.

use crate::eventually::eventually;
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Time the probe has to end: one attempt for each family, of five seconds each, on a busy machine.
const END: Duration = Duration::from_secs(20);

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Address of the IMDS.
    pub imds: IpAddr,
    /// Outcome.
    pub got: Got,
}

/// Outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// Credentials.
    Credentials {
        /// Name of the role in the list.
        role: String,
        /// Id of the access key.
        access_key_id: String,
    },
    /// An HTTP status other than 200.
    Refused(u16),
    /// No response, with Python's name of the error.
    Nothing(String),
}

/// A probe in a pod. It runs until it is ended.
#[derive(Debug)]
pub struct Probe {
    kubectl: Child,
    log: PathBuf,
    /// Number of lines already returned.
    seen: usize,
}

impl Probe {
    pub(super) fn start(mut kubectl: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let kubectl = kubectl.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { kubectl: kubectl.context("start kubectl")?, log, seen: 0 })
    }

    /// Returns the attempts since the last call.
    pub fn news(&mut self) -> Result<Vec<Attempt>> {
        ensure!(self.kubectl.try_wait()?.is_none(), "the probe ended\n{}", self.log());
        let log = self.log();
        // The last line may be unfinished.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let news = whole.lines().skip(self.seen).map(parse).collect::<Result<Vec<_>>>()?;
        self.seen += news.len();
        Ok(news)
    }

    /// Ends it. No attempt is under way when this returns.
    pub fn end(mut self) -> Result<()> {
        // Closes its standard input. Ending kubectl alone would leave the probe running in the pod.
        drop(self.kubectl.stdin.take());
        eventually("the probe ends", END, || {
            ensure!(self.kubectl.try_wait()?.is_some(), "it still runs\n{}", self.log());
            Ok(())
        })
    }

    /// Returns its whole output.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It has ended already; or a trial failed, and the pod's probe ends with its pod.
        drop(self.kubectl.kill());
        if let Err(error) = self.kubectl.wait() {
            eprintln!("wait for a probe: {error}");
        }
    }
}

fn parse(line: &str) -> Result<Attempt> {
    let words: Vec<&str> = line.split(' ').collect();
    let [imds, first, second] = words[..] else { bail!("the probe wrote {line:?}") };
    let got = match first {
        "-" => Got::Nothing(second.to_owned()),
        "HTTP" => Got::Refused(second.parse()?),
        role => Got::Credentials { role: role.to_owned(), access_key_id: second.to_owned() },
    };
    Ok(Attempt { imds: imds.parse()?, got })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_lines_are_parsed() {
        let got = |line| parse(line).unwrap().got;
        assert_eq!(got("169.254.169.254 HTTP 503"), Got::Refused(503));
        assert_eq!(got("fd00:ec2::254 - TimeoutError"), Got::Nothing("TimeoutError".to_owned()));
        let credentials = Got::Credentials { role: "a".to_owned(), access_key_id: "ASIA".to_owned() };
        assert_eq!(got("169.254.169.254 a ASIA"), credentials);
        assert!(parse("Traceback (most recent call last):").is_err());
    }
}

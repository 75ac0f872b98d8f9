//! The unix socket that exec probes and `kiam-agent status` ask: whoever connects is told how the agent is, and nothing is
//! read from them.

use crate::{
    parent::{Channels, STAND_BY},
    report::{Condition, Report, Status},
};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, Permissions},
    io::{ErrorKind, Read as _},
    os::unix::{fs::PermissionsExt as _, net},
    path::Path,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixListener,
    time::{sleep, timeout},
};

/// How long a probe may take to read its answer; one at a time is enough for exec probes.
const WRITE: Duration = Duration::from_secs(1);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of an answer that are read: more than two kilobytes for each interface that there can be.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// What a probe takes of the answer, which is a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// Pods are served.
    pub(crate) ready: bool,
    /// What must hold for that.
    pub(crate) conditions: Vec<Condition>,
}

impl Health {
    fn of(channels: &Channels) -> Self {
        let worker = *channels.worker.borrow();
        let mut conditions = channels.status.borrow().conditions.clone();
        if conditions.iter().any(|condition| condition.name == STAND_BY) {
            // It has no worker to speak of, and needs none.
            return Self { ready: true, conditions };
        }
        let problem = |holds: bool, problem: &str| (!holds).then(|| problem.to_owned());
        conditions.push(Condition {
            name: "worker".to_owned(),
            problem: problem(worker.ready, "no worker answers yet: its log lines say why"),
        });
        conditions.push(Condition {
            name: "server-reached".to_owned(),
            problem: problem(
                worker.server_reached,
                "no server was reached since the agent started: look at --server-address and the certificates",
            ),
        });
        Self { ready: conditions.iter().all(|condition| condition.problem.is_none()), conditions }
    }
}

impl Report {
    fn of(channels: &Channels) -> Self {
        let Health { ready, conditions } = Health::of(channels);
        Self {
            ready,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: channels.datapath.borrow().clone(),
            status: Status { conditions, ..channels.status.borrow().clone() },
        }
    }
}

/// Opens the socket, for root alone; one that a dead agent left behind is replaced.
///
/// # Errors
/// The folder isn't there, or the path is too long for a socket (107 bytes, unix(7)).
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("--probe-socket: replacing {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("--probe-socket: binding {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers probes for as long as the agent runs. At the begin of each term the socket is opened anew: agents that share
/// a `--probe-socket` replace each other's, and it shall be that of the one that serves.
///
/// # Errors
/// As [`bind`].
pub(super) async fn serve(path: &Path, channels: &Channels) -> anyhow::Result<()> {
    let mut claims = channels.claims.subscribe();
    loop {
        let listener = bind(path)?;
        tokio::select! {
            () = answer_all(&listener, channels) => {}
            changed = claims.changed() => changed?,
        }
    }
}

/// One after another.
async fn answer_all(listener: &UnixListener, channels: &Channels) {
    loop {
        let Ok((mut probe, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(answer) = serde_json::to_vec(&Report::of(channels)) else { continue };
        match timeout(WRITE, probe.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a probe went away: {error}"),
            Err(_) => tracing::debug!("a probe did not read its answer"),
        }
    }
}

/// Asks an agent how it is: for its [`Health`], or the whole [`Report`].
///
/// # Errors
/// No agent runs there (an [`std::io::Error`] of that kind is the cause), or it doesn't answer in time.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, timeout: Duration) -> anyhow::Result<T> {
    let agent = net::UnixStream::connect(socket).map_err(|error| {
        let what = match error.kind() {
            ErrorKind::PermissionDenied => "only root may ask the agent, at",
            _ => "no agent answers at",
        };
        anyhow::Error::new(error).context(format!("{what} {} (--probe-socket, --run-dir)", socket.display()))
    })?;
    agent.set_read_timeout(Some(timeout))?;
    let mut answer = Vec::new();
    agent.take(ANSWER_MAX).read_to_end(&mut answer).context("the agent does not answer in time (--timeout)")?;
    if answer.is_empty() {
        bail!("the agent ended while it was asked");
    }
    serde_json::from_slice(&answer).context("the agent's answer is none of this version's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::WorkerState;
    use tokio::sync::watch;

    fn channels(conditions: Vec<Condition>) -> Channels {
        Channels {
            interfaces: watch::Sender::default(),
            kubepods: watch::Sender::default(),
            exempt: watch::Sender::default(),
            status: watch::Sender::new(Status { conditions, ..Status::default() }),
            datapath: watch::Sender::default(),
            worker: watch::Sender::new(WorkerState::default()),
            claims: watch::Sender::new(0),
        }
    }

    async fn ask_at(path: &Path) -> anyhow::Result<Health> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || ask(&path, WRITE)).await?
    }

    /// Asks until it is told the same as the board: another agent may have the socket still.
    async fn until_told(path: &Path, channels: &Channels) {
        let told = async {
            while ask_at(path).await.ok() != Some(Health::of(channels)) {
                sleep(ACCEPT_PAUSE).await;
            }
        };
        timeout(Duration::from_secs(10), told).await.expect("the agent is asked");
    }

    #[tokio::test]
    async fn agents_that_share_a_socket_are_asked_when_they_serve() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.sock");
        let named = |name: &str| Condition { name: name.to_owned(), problem: None };
        let (old, new) = (channels(vec![named("old")]), channels(vec![named("new")]));
        let asked = async {
            until_told(&path, &new).await;
            // The new one has not taken over, and the old one claims everything again.
            old.claims.send_modify(|claims| *claims += 1);
            until_told(&path, &old).await;
        };
        let served = futures::future::try_join(serve(&path, &old), serve(&path, &new));
        tokio::select! {
            () = asked => {}
            ended = served => panic!("{:?}", ended.map(drop)),
        }
    }

    #[test]
    fn one_that_stands_by_is_ready_without_a_worker() {
        let mut conditions = vec![Condition { name: STAND_BY.to_owned(), problem: None }];
        assert!(Health::of(&channels(conditions.clone())).ready);
        conditions.clear();
        assert!(!Health::of(&channels(conditions)).ready, "no worker");
    }
}

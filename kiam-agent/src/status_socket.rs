//! The status socket: a unix socket on which the agent sends its [`Report`] to each client that connects, and reads
//! nothing from it. Exec probes (`kiam-agent health`) and `kiam-agent status` are clients.

use crate::{files, report::Report};
use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
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
    sync::watch,
    time::{sleep, timeout},
};

/// Time that a client has to read its report. Clients are served one at a time, which is enough for exec probes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest report that a client reads, in bytes: more than two kilobytes for each possible interface.
const REPORT_LEN_MAX: u64 = 16 * 1024 * 1024;

/// Serves reports for as long as the agent runs. Rebinds the socket whenever `rebind` changes: agents with the same
/// `--probe-socket` replace each other's socket, and the active agent must own it.
pub(crate) async fn serve(
    path: &Path,
    report: impl Fn() -> Report,
    mut rebind: watch::Receiver<u64>,
) -> anyhow::Result<()> {
    loop {
        let listener = bind(path)?;
        tokio::select! {
            () = answer_all(&listener, &report) => {}
            changed = rebind.changed() => changed?,
        }
    }
}

/// Binds the socket, for root only, and replaces one that an earlier agent left behind. Fails if the folder is missing
/// or the path is too long for a socket (107 bytes, unix(7)).
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    files::remove_if_present(path).context("--probe-socket")?;
    let listener = UnixListener::bind(path).with_context(|| format!("--probe-socket: binding {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers clients, one after another.
async fn answer_all(listener: &UnixListener, report: impl Fn() -> Report) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(answer) = serde_json::to_vec(&report()) else { continue };
        match timeout(WRITE_TIMEOUT, client.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a client of the status socket disconnected: {error}"),
            Err(_) => tracing::debug!("a client of the status socket did not read its report in time"),
        }
    }
}

/// Reads the report of a running agent, or the part of it that `T` has: [`Health`](crate::report::Health), for
/// instance.
///
/// # Errors
/// If no agent runs there, the cause is an [`std::io::Error`] of the kind `NotFound` or `ConnectionRefused`.
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
    agent.take(REPORT_LEN_MAX).read_to_end(&mut answer).context("the agent does not answer in time (--timeout)")?;
    if answer.is_empty() {
        bail!("the agent ended before it answered");
    }
    serde_json::from_slice(&answer).context("the agent's answer is not of this version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    fn report(version: &str) -> Report {
        Report { ready: true, version: version.to_owned(), datapath: None, status: Status::default() }
    }

    async fn version_at(path: &Path) -> anyhow::Result<String> {
        let path = path.to_owned();
        let report: Report = tokio::task::spawn_blocking(move || ask(&path, WRITE_TIMEOUT)).await??;
        Ok(report.version)
    }

    /// Asks until this agent answers: the other one may still own the socket.
    async fn until_answered_by(path: &Path, version: &str) {
        let answered = async {
            while version_at(path).await.ok().as_deref() != Some(version) {
                sleep(ACCEPT_PAUSE).await;
            }
        };
        timeout(Duration::from_secs(10), answered).await.expect("the agent answers");
    }

    #[tokio::test]
    async fn active_agent_owns_a_shared_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.sock");
        let (old_claims, new_claims) = (watch::Sender::new(0), watch::Sender::new(0));
        let asked = async {
            until_answered_by(&path, "new").await;
            // The new one has not taken over, and the old one claims everything again.
            old_claims.send_modify(|claims| *claims += 1);
            until_answered_by(&path, "old").await;
        };
        let served = futures::future::try_join(
            serve(&path, || report("old"), old_claims.subscribe()),
            serve(&path, || report("new"), new_claims.subscribe()),
        );
        tokio::select! {
            () = asked => {}
            ended = served => panic!("{:?}", ended.map(drop)),
        }
    }
}

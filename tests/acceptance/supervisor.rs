//! The process that outlives the tests. However they end, it removes what they left: a node in the middle of its start
//! knows no other way to be taken down on Ctrl-C.

use anyhow::{Context as _, Result, bail};
use kiam_tests::{cluster, eventually::eventually, node::process};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};
use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode},
    time::Duration,
};

/// Set for the process that runs the tests.
const INNER: &str = "KIAM_ACCEPTANCE_INNER";
/// How long the kernel may take to end a node's processes.
const GONE: Duration = Duration::from_secs(30);
/// The exit code of a command that a signal has ended, as shells have it; the signal's number is added.
const SIGNALLED: u8 = 128;

/// Whether this process runs the tests.
pub(crate) fn is_inner() -> bool {
    env::var_os(INNER).is_some()
}

/// Runs this program again, to the end, and clears up after it.
pub(crate) fn run() -> Result<ExitCode> {
    // Blocked before there is a second thread or a child: none is missed.
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    // Processes whose parent is killed become ours, and can be waited for.
    prctl::set_child_subreaper(true)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(env::current_exe()?).args(env::args_os().skip(1)).env(INNER, "1");
    // A group of its own: Ctrl-C at the terminal is for this process alone.
    let mut inner = command.process_group(0).spawn().context("start the tests (setpriv is in util-linux)")?;
    let code = wait(&mut inner, signals)?;
    end_orphans()?;
    cluster::reap().context("remove what the tests left")?;
    Ok(code)
}

fn wait(inner: &mut Child, signals: SigSet) -> Result<ExitCode> {
    let mut told = None;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {}
            signal => {
                told = Some(signal);
                inner.kill()?;
            }
        }
        if let Some(status) = inner.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(match (told, code) {
                (Some(signal), _) => ExitCode::from(SIGNALLED + signal as u8),
                (None, Some(code)) => ExitCode::from(code),
                (None, None) => ExitCode::FAILURE,
            });
        }
    }
}

/// Ends what the tests left running, and waits until it has ended.
fn end_orphans() -> Result<()> {
    eventually("the last processes end", GONE, || {
        for pid in process::children(std::process::id())? {
            // It may have ended meanwhile.
            drop(process::send_signal(pid, Signal::SIGKILL));
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(()),
                Ok(WaitStatus::StillAlive) => bail!("{:?} run on", process::children(std::process::id())?),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the last processes"),
            }
        }
    })
}

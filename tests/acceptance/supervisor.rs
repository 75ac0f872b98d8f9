//! The process that outlives the tests and removes what they left, however they end: a node that is still starting has
//! no other way to be removed after Ctrl-C.

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

/// Environment variable of the process that runs the tests.
const INNER: &str = "KIAM_ACCEPTANCE_INNER";
/// Time the kernel has to end a node's processes.
const GONE: Duration = Duration::from_secs(30);
/// Offset of the exit code of a command that was ended by a signal, as in shells; the signal's number is added.
const SIGNALLED: u8 = 128;

/// Returns whether this process runs the tests.
pub(crate) fn is_inner() -> bool {
    env::var_os(INNER).is_some()
}

/// Runs this program again, to the end, and clears up after it.
pub(crate) fn run() -> Result<ExitCode> {
    // Blocked before there is a second thread or a child, so that none is missed.
    let signals = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    // Processes whose parent is killed become children of this one, which can reap them.
    prctl::set_child_subreaper(true)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(env::current_exe()?).args(env::args_os().skip(1)).env(INNER, "1");
    // In a process group of its own, so that Ctrl-C at the terminal reaches this process alone.
    let mut inner = command.process_group(0).spawn().context("start the tests (setpriv is in util-linux)")?;
    let code = wait(&mut inner, signals)?;
    end_orphans()?;
    cluster::reap().context("remove what the tests left")?;
    Ok(code)
}

fn wait(inner: &mut Child, signals: SigSet) -> Result<ExitCode> {
    let mut received = None;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {}
            signal => {
                received = Some(signal);
                inner.kill()?;
            }
        }
        if let Some(status) = inner.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(match (received, code) {
                (Some(signal), _) => ExitCode::from(SIGNALLED + signal as u8),
                (None, Some(code)) => ExitCode::from(code),
                (None, None) => ExitCode::FAILURE,
            });
        }
    }
}

/// Ends the processes that the tests left, and waits until they have ended.
fn end_orphans() -> Result<()> {
    eventually("the last processes end", GONE, || {
        for pid in process::children(std::process::id())? {
            // It may have ended already.
            drop(process::send_signal(pid, Signal::SIGKILL));
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(()),
                Ok(WaitStatus::StillAlive) => bail!("{:?} still run", process::children(std::process::id())?),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the last processes"),
            }
        }
    })
}

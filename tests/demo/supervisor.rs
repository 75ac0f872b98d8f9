//! The process that holds the terminal and outlives the stage. It ends the stage on request, and then removes whatever
//! the stage left, since the stage may end by an error, a panic or a SIGKILL.
//!
//! The stage's standard input is a pipe from this process: its end is the request to end, and it also arrives when this
//! process is killed.

use super::Args;
use anyhow::{Context as _, Result, ensure};
use kiam_tests::node::{leftovers, owner, process};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, geteuid, getpgrp, tcgetpgrp},
};
use std::{
    future, io,
    io::{IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// Time the stage has to end by itself. It needs about a second to clean up. In the middle of a step it is killed after
/// this time, and this process removes what it left.
const GRACE: Duration = Duration::from_secs(5);
/// Time the last processes have to end after SIGKILL.
const GONE: Duration = Duration::from_secs(10);

/// The stage, seen from the supervisor.
struct Stage {
    pid: Pid,
    /// Dropped to end the stage.
    lifeline: Option<ChildStdin>,
}

/// Runs the stage to its end and leaves nothing behind.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(geteuid().is_root(), "network namespaces and eBPF need root: run `cargo xtask demo`, which asks for it");
    leftovers::reap().context("remove what an earlier run left")?;
    // Processes whose parent is killed become children of this one, which can end and reap them.
    prctl::set_child_subreaper(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(supervise(args));
    let cleared = leave_nothing();
    let code = ended?;
    cleared?;
    Ok(code)
}

async fn supervise(args: &Args) -> Result<ExitCode> {
    // Before the stage starts, so that no signal is missed.
    let mut child = signal(SignalKind::child())?;
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut stage = spawn(args)?;
    let mut quit = keyboard(args);
    let mut deadline = None;
    loop {
        let asked = tokio::select! {
            _ = child.recv() => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = hangup.recv() => true,
            () = pressed(&mut quit) => true,
            () = passed(deadline) => {
                process::send_signal(stage.pid.as_raw().cast_unsigned(), Signal::SIGKILL)?;
                deadline = None;
                false
            }
        };
        if asked && stage.lifeline.take().is_some() {
            deadline = Some(Instant::now() + GRACE);
            // The terminal may be gone: that is one of the ways to end.
            drop(writeln!(io::stderr(), "\nremoving everything"));
        }
        if let Some(code) = wait_for(stage.pid)? {
            return Ok(code);
        }
    }
}

/// Starts this program again, in a process group of its own, so that Ctrl-C at the terminal reaches this process alone.
fn spawn(args: &Args) -> Result<Stage> {
    let Args { once, output, stage: _ } = args;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg("--stage").args(once.then_some("--once")).arg(match output {
        super::Output::Text => "--output=text",
        super::Output::Json => "--output=json",
    });
    let mut child = command.process_group(0).stdin(Stdio::piped()).spawn().context("start the stage")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    Ok(Stage { pid, lifeline: child.stdin.take() })
}

/// Reaps all children that have ended; returns the exit code if the stage is one of them.
fn wait_for(stage: Pid) -> Result<Option<ExitCode>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == stage => {
                code = Some(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == stage => {
                drop(writeln!(io::stderr(), "the demo was ended by {signal}; removing what it left"));
                code = Some(ExitCode::FAILURE);
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the stage"),
        }
    }
}

/// Returns a receiver that fires when `q` and Enter, or Ctrl-D, are typed; `None` without a keyboard.
fn keyboard(args: &Args) -> Option<oneshot::Receiver<()>> {
    let stdin = io::stdin();
    // Reading would stop a background job.
    let is_ours = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|foreground| foreground == getpgrp());
    if args.once || !is_ours {
        return None;
    }
    let (sender, receiver) = oneshot::channel();
    // The thread ends with the process: a read cannot be cancelled.
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if line.map_or(true, |line| line.trim().eq_ignore_ascii_case("q")) {
                break;
            }
        }
        sender.send(())
    });
    Some(receiver)
}

async fn pressed(quit: &mut Option<oneshot::Receiver<()>>) {
    match quit {
        // It fires once; after that there is nothing to wait for.
        Some(receiver) => {
            drop(receiver.await);
            *quit = None;
        }
        None => future::pending().await,
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

/// Ends every process that the stage left as our child, then removes everything that carries the name of a dead owner.
fn leave_nothing() -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        for pid in process::children(std::process::id())? {
            // It may have ended already.
            drop(process::send_signal(pid, Signal::SIGKILL));
        }
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => break,
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(10)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the last processes"),
        }
        ensure!(
            start.elapsed() < GONE,
            "processes of the demo do not end: {:?}",
            process::children(std::process::id())
        );
    }
    leftovers::reap().context("remove what the stage left")?;
    // The folder is empty only after the last of all parallel runs.
    drop(std::fs::remove_dir(owner::ROOT));
    Ok(())
}

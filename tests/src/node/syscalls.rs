//! System calls that a process is made to execute, as if an attacker had taken it over. x86-64 only, like the machines
//! that the tests run on.

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    sys::{
        ptrace::{self, AddressType},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// The instruction `syscall`.
const SYSCALL: libc::c_long = 0x050f;
const SYSCALL_LEN: u64 = 2;

/// Result of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned; a negative number is an error.
    Returned(i64),
    /// The process was ended by this signal.
    Ended(Signal),
}

/// Makes the main thread of a process execute one system call, and then wait as before. The thread must be waiting in
/// the kernel.
pub fn inject(pid: u32, call: libc::c_long, args: [u64; 4]) -> Result<Outcome> {
    let pid = Pid::from_raw(pid.cast_signed());
    ptrace::attach(pid).context("attach")?;
    wait(pid)?;
    let outcome = step(pid, call, args);
    if !matches!(outcome, Ok(Outcome::Ended(_))) {
        ptrace::detach(pid, None).context("detach")?;
    }
    outcome
}

fn step(pid: Pid, call: libc::c_long, args: [u64; 4]) -> Result<Outcome> {
    let waiting = ptrace::getregs(pid)?;
    let instruction = waiting.rip - SYSCALL_LEN;
    let code = ptrace::read(pid, instruction as AddressType)? & 0xffff;
    ensure!(code == SYSCALL, "the process is not in a system call: {code:#x} at {instruction:#x}");
    let [rdi, rsi, rdx, r10] = args;
    // Keeps the kernel from restarting an interrupted call.
    ptrace::setregs(
        pid,
        libc::user_regs_struct {
            rip: instruction,
            orig_rax: u64::MAX,
            rax: call.cast_unsigned(),
            rdi,
            rsi,
            rdx,
            r10,
            ..waiting
        },
    )?;
    ptrace::step(pid, None)?;
    match wait(pid)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {
            let returned = ptrace::getregs(pid)?.rax.cast_signed();
            ptrace::setregs(pid, waiting)?;
            Ok(Outcome::Returned(returned))
        }
        WaitStatus::Signaled(_, signal, _) => Ok(Outcome::Ended(signal)),
        other => bail!("{other:?}"),
    }
}

fn wait(pid: Pid) -> Result<WaitStatus> {
    waitpid(pid, Some(WaitPidFlag::__WALL)).context("wait for the process")
}

//! System calls of the worker: those that a TCP server needs, and no others. The kernel kills a worker that uses
//! another one (SIGSYS); the parent logs that and starts a new worker.

use anyhow::Context as _;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp, SeccompCondition as Condition, SeccompFilter, SeccompRule,
};
use std::{collections::BTreeMap, env::consts::ARCH};

/// Allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Connections.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Files.
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting.
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Time, random numbers, and identity.
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_uname,
];

/// Allowed too; newer architectures do not have these.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

/// Socket families. The C library tries netlink when it resolves names, and copes without it.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FCNTLS: [libc::c_int; 5] = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];
/// Non-blocking mode, the number of available bytes, and detection of a terminal.
const IOCTLS: [libc::Ioctl; 3] = [libc::FIONBIO, libc::FIONREAD, libc::TCGETS];
/// Names of threads and of memory, and the processor's features.
const PRCTLS: [libc::c_int; 3] = [libc::PR_SET_NAME, libc::PR_SET_VMA, PR_GET_AUXV];
/// From include/uapi/linux/prctl.h; missing in the libc crate.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;
const WRITES: libc::c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Installs the filters for this thread and those that it will start. Needs `no_new_privs`.
pub(super) fn confine() -> anyhow::Result<()> {
    anyhow::ensure!(prctl::get_no_new_privs()?, "no_new_privs is not set");
    let missing = filter(refused()?, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))?;
    let forbidden = filter(allowed()?, SeccompAction::KillProcess, SeccompAction::Allow)?;
    for program in [missing, forbidden] {
        seccompiler::apply_filter(&program).context("installing the system call filter")?;
    }
    Ok(())
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> anyhow::Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, otherwise, matched, ARCH.try_into()?);
    Ok(filter.context("building the system call filter")?.try_into()?)
}

/// Returns the calls that fail with ENOSYS, because the C library then falls back to another one.
fn refused() -> anyhow::Result<Rules> {
    let exec = number(libc::PROT_EXEC);
    Ok(Rules::from([
        // Its flags are in memory, which a filter cannot read; those of clone() are arguments.
        (libc::SYS_clone3, Vec::new()),
        (libc::SYS_socket, vec![rule(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?]),
        // The C library loads modules to resolve names.
        (libc::SYS_mmap, vec![rule(2, SeccompCmpOp::MaskedEq(exec), exec)?]),
    ]))
}

fn allowed() -> anyhow::Result<Rules> {
    let one_of = |argument, values: &[u64]| {
        values.iter().map(|&value| rule(argument, SeccompCmpOp::Eq, value)).collect::<anyhow::Result<Vec<_>>>()
    };
    let without = |argument, bits: u64| anyhow::Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bits), 0)?]);
    // Threads only: a child process would outlive the parent, with the listening sockets.
    let thread = number(libc::CLONE_THREAD);
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_OLD).map(|&call| (call, Vec::new())).collect();
    rules.extend([
        (libc::SYS_socket, one_of(0, &SOCKETS.map(number))?),
        (libc::SYS_openat, without(2, number(WRITES))?),
        (libc::SYS_fcntl, one_of(1, &FCNTLS.map(number))?),
        (libc::SYS_ioctl, one_of(1, &IOCTLS)?),
        (libc::SYS_prctl, one_of(0, &PRCTLS.map(number))?),
        // Those with PROT_EXEC are refused by the other filter.
        (libc::SYS_mmap, Vec::new()),
        (libc::SYS_mprotect, without(2, number(libc::PROT_EXEC))?),
        (libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]),
        // Reading a limit, not setting one.
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![Condition::new(2, Qword, SeccompCmpOp::Eq, 0)?])?]),
        // abort().
        (libc::SYS_tgkill, one_of(0, &[std::process::id().into()])?),
    ]);
    #[cfg(target_arch = "x86_64")]
    // rustix opens /proc/self/auxv below Linux 6.4, which has no PR_GET_AUXV.
    rules.insert(libc::SYS_open, without(1, number(WRITES))?);
    Ok(rules)
}

fn number(value: libc::c_int) -> u64 {
    value.cast_unsigned().into()
}

/// Returns a rule with one condition on the low 32 bits of an argument.
fn rule(argument: u8, comparison: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompRule> {
    Ok(SeccompRule::new(vec![Condition::new(argument, Dword, comparison, value)?])?)
}

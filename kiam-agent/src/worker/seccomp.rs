//! What the worker may ask of the kernel: what a server of TCP connections needs, and no more. A worker that does
//! anything else is ended by the kernel (SIGSYS); the parent says so and starts another.

use anyhow::Context as _;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp, SeccompCondition as Condition, SeccompFilter, SeccompRule,
};
use std::{collections::BTreeMap, env::consts::ARCH};

/// With any arguments.
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
    // Time, chance, and who it is.
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_uname,
];

/// What newer architectures have no number for.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

/// Families of sockets; netlink, too, which the C library tries for names and does without.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FCNTLS: [libc::c_int; 5] = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];
/// Set non-blocking; how many bytes are there; is it a terminal?
const IOCTLS: [libc::Ioctl; 3] = [libc::FIONBIO, libc::FIONREAD, libc::TCGETS];
/// The names of threads and of memory, and what the processor can do.
const PRCTLS: [libc::c_int; 3] = [libc::PR_SET_NAME, libc::PR_SET_VMA, PR_GET_AUXV];
/// include/uapi/linux/prctl.h; the libc crate has none.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;
const WRITES: libc::c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// From now on, for this thread and those that it starts. Needs `no_new_privs`.
///
/// # Errors
/// The kernel's, or no filter can be made for this architecture.
pub(super) fn confine() -> anyhow::Result<()> {
    anyhow::ensure!(prctl::get_no_new_privs()?, "new privileges are possible still");
    let missing = filter(refused()?, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))?;
    let forbidden = filter(allowed()?, SeccompAction::KillProcess, SeccompAction::Allow)?;
    for program in [missing, forbidden] {
        seccompiler::apply_filter(&program).context("setting the filter of system calls")?;
    }
    Ok(())
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> anyhow::Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, otherwise, matched, ARCH.try_into()?);
    Ok(filter.context("making a filter of system calls")?.try_into()?)
}

/// What is as if the kernel did not have it, because the C library has another way then.
fn refused() -> anyhow::Result<Rules> {
    let exec = number(libc::PROT_EXEC);
    Ok(Rules::from([
        // Its flags are in memory, where no filter sees them; those of clone() are not.
        (libc::SYS_clone3, Vec::new()),
        (libc::SYS_socket, vec![rule(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?]),
        // A module for looking up names.
        (libc::SYS_mmap, vec![rule(2, SeccompCmpOp::MaskedEq(exec), exec)?]),
    ]))
}

fn allowed() -> anyhow::Result<Rules> {
    let one_of = |argument, values: &[u64]| {
        values.iter().map(|&value| rule(argument, SeccompCmpOp::Eq, value)).collect::<anyhow::Result<Vec<_>>>()
    };
    let without = |argument, bits: u64| anyhow::Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bits), 0)?]);
    // Threads only: a process of its own would outlive the parent, with the listening sockets.
    let thread = number(libc::CLONE_THREAD);
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_OLD).map(|&call| (call, Vec::new())).collect();
    rules.extend([
        (libc::SYS_socket, one_of(0, &SOCKETS.map(number))?),
        (libc::SYS_openat, without(2, number(WRITES))?),
        (libc::SYS_fcntl, one_of(1, &FCNTLS.map(number))?),
        (libc::SYS_ioctl, one_of(1, &IOCTLS)?),
        (libc::SYS_prctl, one_of(0, &PRCTLS.map(number))?),
        // Those with PROT_EXEC never come here.
        (libc::SYS_mmap, Vec::new()),
        (libc::SYS_mprotect, without(2, number(libc::PROT_EXEC))?),
        (libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]),
        // Reads a limit, sets none.
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![Condition::new(2, Qword, SeccompCmpOp::Eq, 0)?])?]),
        // The end of a process that gives up.
        (libc::SYS_tgkill, one_of(0, &[std::process::id().into()])?),
    ]);
    #[cfg(target_arch = "x86_64")]
    // How rustix reads /proc/self/auxv, for want of PR_GET_AUXV below Linux 6.4.
    rules.insert(libc::SYS_open, without(1, number(WRITES))?);
    Ok(rules)
}

fn number(value: libc::c_int) -> u64 {
    value.cast_unsigned().into()
}

/// One condition on an argument, of which 32 bits count.
fn rule(argument: u8, comparison: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompRule> {
    Ok(SeccompRule::new(vec![Condition::new(argument, Dword, comparison, value)?])?)
}

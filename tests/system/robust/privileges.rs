//! Privileges of the agent's two processes, and what an attacker in the worker could do with them.

use crate::support::expect_role;
use anyhow::{Context as _, Result, ensure};
use aya::util::KernelVersion;
use kiam_common::abi::{LAYOUT, MAP_LISTENERS};
use kiam_tests::{
    clients::IMDS4,
    node::{
        process,
        syscalls::{Outcome, inject},
        topology::PodNetwork,
    },
    system::{SOON, System, datapath_scenario, scenario},
};
use nix::{libc, sys::signal::Signal};
use std::{fs, process::Command};

/// `--worker-uid` and `--worker-gid`.
const WORKER: u32 = 65532;
/// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
const FILTERED: &str = "2";

/// Starts an agent with the capabilities of its container, and a served pod.
fn serving(system: &mut System) -> Result<PodNetwork> {
    system.binaries = system.binaries.with_shipped_capabilities(&system.folder())?;
    system.serving_pod("reader")
}

/// `/proc/PID/status`.
struct Status(String);

impl Status {
    fn of(pid: u32) -> Result<Self> {
        Ok(Self(fs::read_to_string(format!("/proc/{pid}/status"))?))
    }

    fn field(&self, name: &str) -> Result<&str> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).with_context(|| format!("no {name} in {}", self.0))
    }

    fn capabilities(&self, set: &str) -> Result<u64> {
        Ok(u64::from_str_radix(self.field(set)?, 16)?)
    }
}

/// Each process has the privileges that it needs, and the worker has none.
#[test]
fn processes_have_least_privilege() {
    scenario(|system| {
        serving(system)?;
        let agent = system.agent()?;
        let parent = Status::of(agent.parent_pid())?;
        // CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF (include/uapi/linux/capability.h).
        let shipped = [6, 7, 12, 38, 39].iter().fold(0_u64, |set, capability| set | 1 << capability);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            ensure!(parent.capabilities(set)? == shipped, "{set} of {}", parent.0);
        }
        let worker = Status::of(agent.worker_pid()?)?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            ensure!(worker.capabilities(set)? == 0, "{set} of {}", worker.0);
        }
        for ids in ["Uid", "Gid"] {
            let worker_ids: Vec<u32> =
                worker.field(ids)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            ensure!(worker_ids == [WORKER; 4], "{ids} of {}", worker.0);
        }
        ensure!(worker.field("Groups")?.is_empty(), "{}", worker.0);
        for status in [&parent, &worker] {
            ensure!(status.field("NoNewPrivs")? == "1", "{}", status.0);
        }
        ensure!(worker.field("Seccomp")? == FILTERED, "{}", worker.0);
        Ok(())
    });
}

/// Linux below 5.11 counts eBPF's memory against the limit, and reports no reason for the refusal.
#[test]
fn locked_memory_limit_is_reported_if_it_matters() {
    datapath_scenario(|system| {
        let limited = system.binaries.with_locked_memory(&system.folder(), 64)?;
        system.binaries = limited.with_shipped_capabilities(&system.folder())?;
        let agent = system.spawn_agent()?;
        if KernelVersion::current()? >= KernelVersion::new(5, 11, 0) {
            return agent.wait_armed();
        }
        ensure!(!agent.daemon.wait(SOON)?.success(), "it started");
        agent.daemon.expect_log("(RLIMIT_MEMLOCK), which is 64 KiB here: add the capability SYS_RESOURCE")
    });
}

/// A worker that makes a system call outside its filter is ended and replaced.
#[test]
fn worker_with_a_forbidden_call_is_replaced() {
    scenario(|system| {
        let pod = serving(system)?;
        let parent = u64::from(system.agent()?.parent_pid());
        let worker = system.agent()?.worker_pid()?;
        // Control of the method: a harmless call returns.
        ensure!(inject(worker, libc::SYS_getpid, [0; 4])? == Outcome::Returned(worker.into()), "getpid");
        for (what, call, args) in forbidden(parent) {
            let worker = system.agent()?.worker_pid()?;
            let outcome = inject(worker, call, args)?;
            ensure!(outcome == Outcome::Ended(Signal::SIGSYS), "{what}: {outcome:?}");
            system.agent()?.daemon.wait_log("signal: 31 (SIGSYS)")?;
            system.agent()?.wait_for_worker_after(worker)?;
            system.wait_for_role(&pod, IMDS4, "reader")?;
        }
        expect_role(&pod, "reader")
    });
}

/// Calls that an attacker in the worker could use.
fn forbidden(parent: u64) -> [(&'static str, libc::c_long, [u64; 4]); 8] {
    const OBJ_GET: u64 = 7;
    let (packet, raw) = (libc::AF_PACKET as u64, libc::SOCK_RAW as u64);
    [
        ("a signal to the parent", libc::SYS_kill, [parent, libc::SIGSTOP as u64, 0, 0]),
        ("tracing the parent", libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), parent, 0, 0]),
        ("the parent's memory", libc::SYS_process_vm_writev, [parent, 0, 0, 0]),
        ("a pin", libc::SYS_bpf, [OBJ_GET, 0, 0, 0]),
        ("a packet socket", libc::SYS_socket, [packet, raw, 0, 0]),
        ("another program", libc::SYS_execve, [0; 4]),
        ("a process that outlives the agent", libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0]),
        ("a file to write", libc::SYS_openat, [0, 0, libc::O_RDWR as u64, 0]),
    ]
}

/// Even without the filter, the worker's user can open no pin and signal no parent.
#[test]
fn workers_user_can_open_no_pin() {
    scenario(|system| {
        serving(system)?;
        let parent = system.agent()?.parent_pid().to_string();
        let pin = system.bpffs().join("kiam").join(LAYOUT).join(MAP_LISTENERS);
        let pin = pin.to_str().context("a path of text")?;
        let environment = format!("/proc/{parent}/environ");
        for command in [&["kill", "-0", &parent] as &[&str], &["stat", pin], &["cat", &environment]] {
            // Control: the command itself works.
            process::run(Command::new("env").args(command))?;
            let refused = process::output(Command::new("setpriv").args(AS_WORKER).args(command))?;
            let error = String::from_utf8_lossy(&refused.stderr);
            let denied = ["denied", "not permitted"].iter().any(|word| error.contains(word));
            ensure!(!refused.status.success() && denied, "{command:?}: {} {error}", refused.status);
        }
        Ok(())
    });
}

/// The privileges of the worker in `/proc/PID/status`, without its filter.
const AS_WORKER: [&str; 6] =
    ["--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];

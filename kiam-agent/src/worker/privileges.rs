//! Gives up everything that the process that answers pods must not have: root, capabilities, new privileges, and the
//! ability to outlive its parent.

use crate::config::DatapathConfig;
use anyhow::{Context as _, bail};
use caps::{CapSet, Capability};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid},
};
use std::os::unix::net::UnixStream;

/// Most descriptors that the worker needs: its connections, as many that wait for attestation, 64 that are
/// being refused, and some files.
const DESCRIPTORS: u64 = 4_096;

/// Drops all privileges. Must be called before other threads are started: some privileges belong to a thread.
///
/// # Errors
/// The process must end.
pub(super) fn drop_all(config: &DatapathConfig, control: &UnixStream) -> anyhow::Result<()> {
    prctl::set_no_new_privs().context("setting no_new_privs")?;
    caps::clear(None, CapSet::Ambient).context("clearing the ambient capabilities")?;
    drop_bounding_set()?;
    let (uid, gid) = (Uid::from_raw(config.worker_uid), Gid::from_raw(config.worker_gid));
    setgroups(&[]).context("giving up supplementary groups: the agent needs CAP_SETGID")?;
    setresgid(gid, gid, gid).context("changing the group: the agent needs CAP_SETGID")?;
    setresuid(uid, uid, uid).context("changing the user: the agent needs CAP_SETUID")?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).with_context(|| format!("clearing the capabilities ({set:?})"))?;
    }
    verify()?;
    forbid_dumps()?;
    die_with_parent(control)?;
    raise_descriptors()
}

/// Clears the bounding set if the process has CAP_SETPCAP. In the container it has not; there, no_new_privs alone keeps
/// executed programs from gaining privileges.
fn drop_bounding_set() -> anyhow::Result<()> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).context("reading the capabilities")? {
        return Ok(());
    }
    caps::clear(None, CapSet::Bounding).context("clearing the bounding set")
}

fn verify() -> anyhow::Result<()> {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        let left = caps::read(None, set).context("reading the capabilities")?;
        if !left.is_empty() {
            bail!("the process still has capabilities after dropping all ({set:?}): {left:?}");
        }
    }
    if Uid::effective().is_root() || setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        bail!("the process is root, or can become root again");
    }
    Ok(())
}

/// Forbids core dumps and ptrace: credentials of pods are in this process's memory.
fn forbid_dumps() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("forbidding core dumps")?;
    prctl::set_dumpable(false).context("forbidding other processes to read the memory")
}

/// Makes the kernel kill this process when the parent ends, because no process would reconcile the datapath then. A
/// change of user clears the signal, so it is set afterwards, and a parent that ended earlier is detected by its
/// process number.
fn die_with_parent(control: &UnixStream) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("tying the process to its parent")?;
    let maker = getsockopt(control, PeerCredentials).context("reading the creator of the control socket")?;
    if maker.pid() != getppid().as_raw() {
        bail!("the parent has ended");
    }
    Ok(())
}

/// Raises the limit of open files: the usual one, 1024, is just the number of connections.
fn raise_descriptors() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    let wanted = DESCRIPTORS.min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raising the limit of open files")?;
    }
    Ok(())
}

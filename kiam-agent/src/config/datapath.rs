//! How pods' connections are caught, and where the agent's own files are.

use super::{
    InterfaceMatch, KubepodsAt,
    attestation::{self, Attestation},
    mode::{self, HostNetworkPods, RedirectMode},
    paths::Paths,
};
use crate::args::RedirectArgs;
use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// How pods' connections are caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatapathConfig {
    /// The interfaces that pods are behind.
    pub(crate) interfaces: InterfaceMatch,
    /// By which means.
    pub(crate) mode: RedirectMode,
    /// What hostNetwork pods may reach.
    pub(crate) host_network_pods: HostNetworkPods,
    /// Where the BPF file system is mounted.
    pub(crate) bpffs: PathBuf,
    /// A directory of the agent's own, on tmpfs.
    pub(crate) run_dir: PathBuf,
    /// A directory of the agent's own, on disk.
    pub(crate) state_dir: PathBuf,
    /// How the program is attached.
    pub(crate) tc: TcAttach,
    /// How a connection's pod is known.
    pub(crate) attestation: Attestation,
    /// Below which cgroup pods are.
    pub(crate) kubepods: KubepodsAt,
    /// The socket that `kiam-agent health` and `status` ask.
    pub(crate) probe_socket: PathBuf,
    /// The worker's user, never root.
    pub(crate) worker_uid: u32,
    /// The worker's group, never root's.
    pub(crate) worker_gid: u32,
}

/// How the TC program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcAttach {
    /// By TCX where the kernel has it, else by a clsact filter.
    Auto,
    /// By a TCX link only.
    Tcx,
    /// By a clsact filter only.
    Clsact,
}

impl TryFrom<RedirectArgs> for DatapathConfig {
    type Error = Problems;

    fn try_from(args: RedirectArgs) -> Result<Self, Problems> {
        let RedirectArgs {
            redirect,
            host_network_pods,
            attestation,
            kubepods_cgroup,
            host_interface,
            bpffs,
            tc,
            ipv6,
            paths,
            worker_uid,
            worker_gid,
        } = args;
        let mut problems = Problems::default();
        let interfaces =
            problems.value("--host-interface", &host_interface.join(","), |_| InterfaceMatch::parse(&host_interface));
        let means = mode::parse(&redirect, &host_network_pods, &mut problems);
        let bpffs = problems.value("--bpffs", &bpffs, flags::absolute_path);
        let tc = problems.value("--tc", &tc, |text| match text {
            "auto" => Ok(TcAttach::Auto),
            "tcx" => Ok(TcAttach::Tcx),
            "clsact" => Ok(TcAttach::Clsact),
            _ => Err("not one of auto, tcx, clsact"),
        });
        let ipv6 = problems.value("--ipv6", &ipv6, |text| match text {
            "auto" => Ok(()),
            _ => Err("only auto is known: an address that is not served would be open to every pod"),
        });
        let attested = attestation::parse(&attestation, &kubepods_cgroup, &mut problems);
        let paths = problems.section(Paths::try_from(paths));
        let uid = problems.value("--worker-uid", &worker_uid, unprivileged_id);
        let gid = problems.value("--worker-gid", &worker_gid, unprivileged_id);
        let config = || {
            ipv6?;
            let (mode, host_network_pods) = means?;
            let (attestation, kubepods) = attested?;
            let Paths { run_dir, state_dir, probe_socket } = paths?;
            Some(Self {
                interfaces: interfaces?,
                mode,
                host_network_pods,
                attestation,
                kubepods,
                bpffs: bpffs?,
                run_dir,
                state_dir,
                tc: tc?,
                probe_socket,
                worker_uid: uid?,
                worker_gid: gid?,
            })
        };
        config().ok_or(problems)
    }
}

/// A user or group other than root: what parses pods' bytes may not be root.
fn unprivileged_id(text: &str) -> Result<u32, &'static str> {
    match text.parse() {
        // The last number means «leave as it is» (setresuid(2)).
        Ok(id) if id != 0 && id != u32::MAX => Ok(id),
        _ => Err("not the number of a user or group other than root"),
    }
}

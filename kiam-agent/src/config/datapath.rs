//! Configuration of the datapath and of the agent's own files.

use super::{
    InterfaceMatch, KubepodsAt,
    attestation::{self, Attestation},
    mode::{self, HostNetworkPods, RedirectMode},
    paths::Paths,
};
use crate::args::RedirectArgs;
use kiam_common::flags::{self, Problems};
use std::path::PathBuf;

/// Configuration of the datapath and of the agent's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatapathConfig {
    /// The interfaces with pods behind them.
    pub(crate) interfaces: InterfaceMatch,
    pub(crate) mode: RedirectMode,
    pub(crate) host_network_pods: HostNetworkPods,
    /// Mount point of the BPF file system.
    pub(crate) bpffs: PathBuf,
    /// The agent's own directory on tmpfs.
    pub(crate) run_dir: PathBuf,
    /// The agent's own directory on disk.
    pub(crate) state_dir: PathBuf,
    pub(crate) tc: TcAttach,
    pub(crate) attestation: Attestation,
    pub(crate) kubepods: KubepodsAt,
    /// The status socket.
    pub(crate) probe_socket: PathBuf,
    /// User of the worker, never root.
    pub(crate) worker_uid: u32,
    /// Group of the worker, never root's.
    pub(crate) worker_gid: u32,
}

/// Attachment of the TC programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcAttach {
    /// A TCX link if the kernel has TCX, else a clsact filter.
    Auto,
    /// A TCX link.
    Tcx,
    /// A clsact filter.
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
            _ => Err("only auto is supported: an address that is not redirected would be open to every pod"),
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

/// Parses the id of a user or group other than root: the process that parses pods' bytes must not be root.
fn unprivileged_id(text: &str) -> Result<u32, &'static str> {
    match text.parse() {
        // The largest number means «leave unchanged» (setresuid(2)).
        Ok(id) if id != 0 && id != u32::MAX => Ok(id),
        _ => Err("not the numeric id of a user or group other than root"),
    }
}

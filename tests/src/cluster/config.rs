//! The configuration files of the node, from the templates in `tests/fixtures/cluster/conf`.

use super::{Cni, images::PAUSE, state::Cgroups};
use crate::node::topology::NODE_V4;
use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// IPv4 addresses of pods: those that [`crate::node::topology::Sender`] recognises as pods'.
const PODS_V4: &str = "10.9.0.0/24";
/// IPv6 addresses of pods.
const PODS_V6: &str = "fd00:9::/64";

/// Writes all of them.
pub(super) fn write(state: &Path, cgroups: Cgroups, cni: Cni, server_name: &str) -> Result<()> {
    let runc = match cgroups {
        Cgroups::V2 => Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cluster/runc-without-limits"),
        Cgroups::Hybrid => "/usr/sbin/runc".into(),
    };
    let state_text = state.to_str().context("a path in UTF-8")?;
    let runc = runc.to_str().context("a path in UTF-8")?;
    let fill = |template: &str| {
        [("@STATE@", state_text), ("@PAUSE@", PAUSE), ("@RUNC@", runc), ("@PODS_V4@", PODS_V4), ("@PODS_V6@", PODS_V6)]
            .iter()
            .fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value))
    };
    let write = |file: &str, text: String| {
        let path = state.join(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    fs::create_dir(state.join("cni"))?;
    write("containerd.toml", fill(include_str!("../../fixtures/cluster/conf/containerd.toml")))?;
    write("kubelet.yaml", fill(include_str!("../../fixtures/cluster/conf/kubelet.yaml")))?;
    let pods = match cni {
        Cni::Ptp => include_str!("../../fixtures/cluster/conf/ptp.conflist"),
        Cni::Bridge => include_str!("../../fixtures/cluster/conf/bridge.conflist"),
    };
    write("cni/10-pods.conflist", fill(pods))?;
    // There is no cluster DNS: the headless service resolves to the only node.
    write("hosts", format!("127.0.0.1 localhost\n::1 localhost\n{NODE_V4} {server_name}\n"))?;
    write("resolv.conf", String::new())
}

//! `kiam-agent cleanup`: removes everything, in reverse order. Afterwards the node is open: pods reach the real IMDS
//! again.

use super::{
    fence::Fence,
    node::{devices, netlink},
    ownership::node_lock::NodeLock,
    programs::{pins, tc},
    self_check::probe,
};
use std::path::Path;

/// The unit that closes a node when it boots (`deploy/boot`), and the folders where it can be installed. In a pod these
/// are not visible; only the rules that it has set show it.
const BOOT_UNIT: &str = "kiam-fence.service";
const BOOT_UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// Removes the fence, the programs on the interfaces, the backstop and all maps, whichever agent created them and
/// whether they exist or not. Returns an error if an agent runs.
pub(crate) async fn run(bpffs: &Path) -> anyhow::Result<()> {
    let lock = NodeLock::open(bpffs)?;
    lock.lock_exclusive()?;
    let netlink = netlink::connect()?;
    let fence = Fence::new(netlink.clone());
    probe::remove_device(&netlink).await?;
    let closes_at_boot =
        fence.was_set_at_boot().await? || BOOT_UNIT_FOLDERS.iter().any(|to| Path::new(to).join(BOOT_UNIT).exists());
    fence.remove().await?;
    for device in devices::list(&netlink).await? {
        let mut ours = false;
        for (direction, handle) in tc::FILTERS {
            ours |= tc::remove_filter(&device.name, direction, handle)?;
        }
        if ours {
            tc::remove_idle_qdisc(&netlink, device.index).await?;
        }
    }
    for layout in pins::layouts(lock.root())? {
        layout.remove_all()?;
    }
    pins::remove_root(lock.root())?;
    if closes_at_boot {
        tracing::warn!(
            "{BOOT_UNIT} closes this node again when it boots: run `systemctl disable {BOOT_UNIT}` on the node and \
             remove the file"
        );
    }
    Ok(())
}

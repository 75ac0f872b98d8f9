//! `kiam-agent cleanup`: takes everything down, in reverse, and leaves nothing. After it the node is open: pods reach
//! the real metadata service again.

use super::{
    fence::Fence,
    node::{devices, netlink},
    ownership::node_lock::NodeLock,
    programs::{pins, tc},
    self_check::probe,
};
use std::path::Path;

/// What closes a node from its boot on (`deploy/boot`), and where it is installed; in a pod only its rules tell.
const BOOT_UNIT: &str = "kiam-fence.service";
const BOOT_UNIT_FOLDERS: [&str; 3] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];

/// Removes the fence, the programs on the interfaces, the backstop and all maps, whichever agent's they are. What is not
/// there is fine.
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
            "{BOOT_UNIT} closes this node again when it boots: run `systemctl disable {BOOT_UNIT}` on it and remove the file"
        );
    }
    Ok(())
}

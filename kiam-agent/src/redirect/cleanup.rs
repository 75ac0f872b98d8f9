//! `kiam-agent cleanup`: takes everything down, in reverse, and leaves nothing. After it the node is open: pods reach
//! the real metadata service again.

use super::{fence::Fence, links, netlink, pins::Pins, tc};
use std::path::Path;

/// Removes the fence, the programs on the interfaces, the backstop and all maps. What is not there is fine.
///
/// # Errors
/// What could not be removed.
pub(crate) async fn run(bpffs: &Path) -> anyhow::Result<()> {
    let netlink = netlink::connect()?;
    Fence::new(netlink.clone()).remove().await?;
    for device in links::devices(&netlink).await? {
        let mut ours = false;
        for (direction, handle) in tc::FILTERS {
            ours |= tc::remove_filter(&device.name, direction, handle)?;
        }
        if ours {
            tc::remove_idle_qdisc(&netlink, device.index).await?;
        }
    }
    Pins::at(bpffs)?.remove_all()
}

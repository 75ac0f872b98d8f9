//! The interface of the probe: a veth without an address; and the route back to the sender of the probe.

use super::frame;
use crate::datapath::node::{
    devices,
    family::Family,
    roles::{PROBE, PROBE_PEER},
};
use anyhow::Context as _;
use netlink_packet_route::{
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
    neighbour::NeighbourState,
    route::RouteScope,
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Creates the interface if it does not exist.
pub(crate) async fn ensure(netlink: &Handle) -> anyhow::Result<()> {
    if if_nametoindex(PROBE).is_ok() {
        return Ok(());
    }
    create(netlink).await.with_context(|| format!("creating the interface {PROBE}"))
}

async fn create(netlink: &Handle) -> anyhow::Result<()> {
    netlink.link().add(LinkVeth::new(PROBE, PROBE_PEER).build()).execute().await.context("adding it")?;
    for name in [PROBE_PEER, PROBE] {
        let index = if_nametoindex(name).context("it has disappeared again")?;
        // No link-local address, and so no messages about one.
        let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message =
            LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![silent])).build();
        // A kernel without IPv6 refuses this.
        if let Err(error) = netlink.link().set(message).execute().await {
            tracing::debug!("{name}: {error}");
        }
        bring_up(netlink, index).await?;
    }
    Ok(())
}

async fn bring_up(netlink: &Handle, index: u32) -> anyhow::Result<()> {
    let up = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(up).execute().await.context("bringing it up")
}

/// Returns the index and the MAC address of the interface.
pub(super) async fn find(netlink: &Handle) -> anyhow::Result<(u32, [u8; 6])> {
    let devices = devices::list(netlink).await?;
    let device = devices.into_iter().find(|device| device.name == PROBE);
    let device = device.with_context(|| format!("there is no interface {PROBE}"))?;
    Ok((device.index, device.mac.context("it has no MAC address")?))
}

/// Sets up the route for answers: out by the interface, to a neighbour that needs no lookup. Returns the families for
/// which this succeeded: IPv6 may be off for new interfaces, both those of pods and this one.
pub(super) async fn route_back(netlink: &Handle, index: u32, families: &[Family]) -> anyhow::Result<Vec<Family>> {
    for name in [PROBE_PEER, PROBE] {
        bring_up(netlink, if_nametoindex(name)?).await?;
    }
    let mut routed = Vec::new();
    for &family in families {
        let sender = frame::sender(family);
        let route = match sender {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .output_interface(index)
                .scope(RouteScope::Link)
                .build(),
            IpAddr::V6(address) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).output_interface(index).build()
            }
        };
        if let Err(error) = netlink.route().add(route).replace().execute().await {
            tracing::debug!("{PROBE}: no route to {sender}: {error}");
            continue;
        }
        let neighbour = netlink.neighbours().add(index, sender).link_layer_address(&frame::sender_mac());
        let added = neighbour.state(NeighbourState::Permanent).replace().execute().await;
        added.with_context(|| format!("adding the neighbour {sender}"))?;
        routed.push(family);
    }
    Ok(routed)
}

/// Removes the interface, if it exists.
pub(crate) async fn remove(netlink: &Handle) -> anyhow::Result<()> {
    let Ok(index) = if_nametoindex(PROBE) else { return Ok(()) };
    netlink.link().del(index).execute().await.with_context(|| format!("removing {PROBE}"))
}

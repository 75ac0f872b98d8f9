//! Netlink connections: one for requests, one for changes.

use anyhow::Context as _;
use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, sys::SocketAddr};

use super::devices;

/// Multicast groups of the changes that can affect the datapath.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Tc,
];

/// Subject of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Links, addresses, rules, routes.
    Node,
    /// Removed filters, possibly including ours.
    Filters,
}

/// Opens a connection for requests. Its task ends with the runtime.
pub(crate) fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Changes of the node's links, addresses, rules, routes and filters.
pub(crate) struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Kept: without a handle the connection ends.
    _handle: Handle,
}

impl Changes {
    /// Subscribes to changes.
    pub(crate) fn subscribe() -> anyhow::Result<Self> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).context("subscribing to netlink messages")?;
        tokio::spawn(connection);
        Ok(Self { messages, _handle: handle })
    }

    /// Waits until something may have changed, and consumes all queued messages: the caller reads the whole state next,
    /// so one message is as good as a thousand, and an overrun counts as a change, too.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<Change> {
        loop {
            let (message, _) = self.messages.next().await.context("the netlink socket was closed")?;
            let Some(mut change) = change_of(&message) else { continue };
            while let Ok((message, _)) = self.messages.try_recv() {
                change = change_of(&message).map_or(change, |also| change.max(also));
            }
            return Ok(change);
        }
    }
}

/// Returns the change that a message reports, if it matters: a routing daemon may add and remove thousands of routes.
fn change_of(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Change> {
    use RouteNetlinkMessage::{DelQueueDiscipline, DelRoute, DelTrafficFilter, NewRoute};
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return Some(Change::Node) };
    match message {
        NewRoute(route) | DelRoute(route) => devices::matters(route).then_some(Change::Node),
        DelTrafficFilter(_) | DelQueueDiscipline(_) => Some(Change::Filters),
        // Queues and filters that others add.
        _ if message.is_new_qdisc() || message.is_new_filter() => None,
        _ => Some(Change::Node),
    }
}

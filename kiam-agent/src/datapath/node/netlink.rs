//! One netlink connection for questions, one for news.

use anyhow::Context as _;
use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, sys::SocketAddr};

use super::devices;

/// What can change the node in ways that matter here.
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

/// What news is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Links, addresses, rules, routes.
    Node,
    /// Filters that are gone, ours perhaps among them.
    Filters,
}

/// A connection to ask over. Its task ends with the runtime.
pub(crate) fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Changes of the node's links, addresses, rules and routes.
pub(crate) struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Kept: without a handle the connection ends.
    _handle: Handle,
}

impl Changes {
    /// Subscribes.
    pub(crate) fn subscribe() -> anyhow::Result<Self> {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).context("subscribing to netlink news")?;
        tokio::spawn(connection);
        Ok(Self { messages, _handle: handle })
    }

    /// Waits until something may have changed, and takes in all that has piled up: what follows is a dump, so one
    /// piece of news is as good as a thousand, and an overrun is news as well.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<Change> {
        loop {
            let (message, _) = self.messages.next().await.context("the netlink socket was closed")?;
            let Some(mut heard) = about(&message) else { continue };
            while let Ok((message, _)) = self.messages.try_recv() {
                heard = about(&message).map_or(heard, |also| heard.max(also));
            }
            return Ok(heard);
        }
    }
}

/// What a message tells, if that matters: nodes with a routing daemon see thousands of routes come and go.
fn about(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Change> {
    use RouteNetlinkMessage::{DelQueueDiscipline, DelRoute, DelTrafficFilter, NewRoute};
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return Some(Change::Node) };
    match message {
        NewRoute(route) | DelRoute(route) => devices::matters(route).then_some(Change::Node),
        DelTrafficFilter(_) | DelQueueDiscipline(_) => Some(Change::Filters),
        // Queues and filters that others make.
        _ if message.is_new_qdisc() || message.is_new_filter() => None,
        _ => Some(Change::Node),
    }
}

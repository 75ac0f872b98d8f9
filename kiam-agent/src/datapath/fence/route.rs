//! The route of the fence in our table, one for each family, as netlink messages.

use super::{PROTOCOL, Verdict};
use crate::datapath::node::family::{Family, TABLE};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;
use std::net::IpAddr;

/// Index of the loopback interface (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// Returns the route `blackhole IMDS` or `local IMDS dev lo`.
pub(super) fn new(family: Family, verdict: Verdict) -> RouteMessage {
    let builder = RouteMessageBuilder::<IpAddr>::new().table_id(TABLE).protocol(PROTOCOL).kind(kind(verdict));
    let builder = match verdict {
        Verdict::Blackhole => builder,
        Verdict::Local => builder.scope(RouteScope::Host).output_interface(LOOPBACK),
    };
    let mut route = builder.build();
    route.header.address_family = family.address_family();
    route.header.destination_prefix_length = family.prefix_len();
    route.attributes.push(RouteAttribute::Destination(destination(family)));
    route
}

/// Returns the query for all routes of a family.
pub(super) fn query(family: Family) -> RouteMessage {
    let mut route = RouteMessageBuilder::<IpAddr>::new().build();
    route.header.address_family = family.address_family();
    route
}

/// Returns whether a route is the one to the IMDS in our table; the kernel lists those of all tables.
pub(super) fn is_ours(route: &RouteMessage, family: Family) -> bool {
    let has = |wanted: RouteAttribute| route.attributes.contains(&wanted);
    has(RouteAttribute::Table(TABLE)) && has(RouteAttribute::Destination(destination(family)))
}

/// Returns whether the route has this action.
pub(super) fn does(route: &RouteMessage, verdict: Verdict) -> bool {
    route.header.kind == kind(verdict)
}

/// Returns the action of a route, if it is one of ours.
pub(super) fn verdict(route: &RouteMessage) -> Option<Verdict> {
    [Verdict::Local, Verdict::Blackhole].into_iter().find(|&verdict| does(route, verdict))
}

const fn kind(verdict: Verdict) -> RouteType {
    match verdict {
        Verdict::Blackhole => RouteType::BlackHole,
        Verdict::Local => RouteType::Local,
    }
}

fn destination(family: Family) -> RouteAddress {
    match family.imds() {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

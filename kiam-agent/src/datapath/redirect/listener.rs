//! The sockets that pods' connections are assigned to: on loopback, so that nobody on the network can reach them, and
//! transparent, so that they answer from M. The one exception is on the node's address, in a mode of its own.

use crate::{config::RedirectMode, datapath::node::family::Family, sys};
use anyhow::{Context as _, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// Connections that may wait to be accepted: a thousand pods that start at once must not lose a SYN (the kernel caps it
/// at net.core.somaxconn).
const BACKLOG: i32 = 4096;
/// A port for an address that nothing is sent to (RFC 863).
const DISCARD_PORT: u16 = 9;

/// One listening socket for each family; and one more on the node's own address where only the cgroup hooks redirect:
/// they cannot send a pod in its own network namespace to the node's loopback.
pub(crate) fn open_all(families: &[Family], mode: RedirectMode) -> anyhow::Result<Vec<TcpListener>> {
    let mut addresses: Vec<IpAddr> = families.iter().map(|&family| loopback(family)).collect();
    if !mode.tc {
        let of_the_node = node_addresses(families);
        if of_the_node.is_empty() {
            bail!("--redirect=cgroup: without a default route it is not known at which address pods reach the node");
        }
        addresses.extend(of_the_node);
    }
    addresses.into_iter().map(|address| open(address).with_context(|| format!("at {address}"))).collect()
}

/// The port of a family's socket on loopback.
pub(crate) fn port(listeners: &[TcpListener], family: Family) -> Option<u16> {
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    addresses.filter(|address| address.ip() == loopback(family)).map(|address| address.port()).next()
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// Whether the sockets on the node's address are still where pods reach the node.
pub(crate) fn check(listeners: &[TcpListener], families: &[Family], mode: RedirectMode) -> anyhow::Result<()> {
    if mode.tc {
        return Ok(());
    }
    let (wanted, mut bound) = (node_addresses(families), Vec::new());
    for listener in listeners {
        bound.extend(Some(listener.local_addr()?.ip()).filter(|address| !address.is_loopback()));
    }
    if wanted != bound {
        bail!("the node's addresses are {wanted:?} now, and the agent listens on {bound:?}: start it again");
    }
    Ok(())
}

/// The address of each family that the node sends from towards the world: pods can reach it whatever their network is.
fn node_addresses(families: &[Family]) -> Vec<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849). Connecting a UDP socket sends nothing: the kernel only chooses.
    let address = |family| {
        let (any, far): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
            Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((far, DISCARD_PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    families.iter().filter_map(|&family| address(family)).collect()
}

/// The port does not matter, so that the old and the new agent of an upgrade overlap.
fn open(address: IpAddr) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM.nonblocking().cloexec(), None)?;
    // Without it, one connection or TIME_WAIT of ours keeps a hostNetwork ingress from binding port 80.
    socket.set_reuse_address(true)?;
    let assigned = address.is_loopback();
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(assigned).context("IP_TRANSPARENT")?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).context("IP_PKTINFO")?;
    } else {
        socket.set_only_v6(true)?;
        sys::set_ipv6_transparent(&socket, assigned).context("IPV6_TRANSPARENT")?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).context("IPV6_RECVPKTINFO")?;
    }
    socket.bind(&SocketAddr::new(address, 0).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

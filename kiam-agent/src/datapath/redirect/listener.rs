//! The listening sockets that pods' connections are assigned to: on loopback, so that no other host can reach them, and
//! transparent, so that they answer from the address of the IMDS. With `--redirect=cgroup` there is one more on the
//! node's address.

use crate::{config::RedirectMode, datapath::node::family::Family, sys};
use anyhow::{Context as _, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// Maximum of connections that wait to be accepted: a thousand pods that start at once must not lose a SYN (the kernel
/// caps it at net.core.somaxconn).
const BACKLOG: i32 = 4096;
/// Port for an address to which nothing is sent (RFC 863).
const DISCARD_PORT: u16 = 9;

/// Opens one listening socket for each family. If only the cgroup hooks redirect, opens one more on the node's own
/// address: the hooks cannot redirect a pod in its own network namespace to the node's loopback.
pub(crate) fn open_all(families: &[Family], mode: RedirectMode) -> anyhow::Result<Vec<TcpListener>> {
    let mut addresses: Vec<IpAddr> = families.iter().map(|&family| loopback(family)).collect();
    if !mode.tc {
        let of_the_node = node_addresses(families);
        if of_the_node.is_empty() {
            bail!("--redirect=cgroup: the node has no default route, so the address at which pods reach it is unknown");
        }
        addresses.extend(of_the_node);
    }
    addresses.into_iter().map(|address| open(address).with_context(|| format!("on {address}"))).collect()
}

/// Returns the port of a family's socket on loopback.
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

/// Verifies that the sockets on the node's addresses still listen where pods reach the node.
pub(crate) fn check(listeners: &[TcpListener], families: &[Family], mode: RedirectMode) -> anyhow::Result<()> {
    if mode.tc {
        return Ok(());
    }
    let (wanted, mut bound) = (node_addresses(families), Vec::new());
    for listener in listeners {
        bound.extend(Some(listener.local_addr()?.ip()).filter(|address| !address.is_loopback()));
    }
    if wanted != bound {
        bail!("the node's addresses are {wanted:?} now, but the agent listens on {bound:?}: restart the agent");
    }
    Ok(())
}

/// Returns the source address of each family that the node uses for its default route: pods can reach it in any
/// network.
fn node_addresses(families: &[Family]) -> Vec<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849). Connecting a UDP socket sends nothing; the kernel chooses a
    // source.
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

/// Opens a socket on a port that the kernel chooses, so that the old and the new agent of an upgrade can overlap.
fn open(address: IpAddr) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM.nonblocking().cloexec(), None)?;
    // Without it, a single connection or TIME_WAIT of ours would prevent a hostNetwork ingress from binding port 80.
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

//! The sockets that pods' connections are assigned to: on loopback, so that nobody on the network can reach them, and
//! transparent, so that they answer from M.

use super::fence::Family;
use crate::sys;
use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Connections that may wait to be accepted: a thousand pods that start at once must not lose a SYN (the kernel caps it
/// at net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// One listening socket for each family.
///
/// # Errors
/// The kernel's: `EPERM` without CAP_NET_ADMIN.
pub(crate) fn open_all(families: &[Family]) -> anyhow::Result<Vec<TcpListener>> {
    families
        .iter()
        .map(|&family| open(family).with_context(|| format!("on the {} loopback address", family.name())))
        .collect()
}

/// The port does not matter, so that the old and the new agent of an upgrade overlap.
fn open(family: Family) -> anyhow::Result<TcpListener> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    // Without it, one connection or TIME_WAIT of ours keeps a hostNetwork ingress from binding port 80.
    socket.set_reuse_address(true)?;
    let address: SocketAddr = match family {
        Family::V4 => {
            socket.set_ip_transparent_v4(true).context("IP_TRANSPARENT")?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).context("IP_PKTINFO")?;
            (Ipv4Addr::LOCALHOST, 0).into()
        }
        Family::V6 => {
            socket.set_only_v6(true)?;
            sys::set_ipv6_transparent(&socket).context("IPV6_TRANSPARENT")?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).context("IPV6_RECVPKTINFO")?;
            (Ipv6Addr::LOCALHOST, 0).into()
        }
    };
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

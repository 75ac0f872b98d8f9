//! Whose connection it is. The kernel knows: the peer's address, and the interface that the connection came in by.
//! What a client says of itself is never asked.

use crate::{handoff::Interface, source::Caller, sys};
use kiam_common::abi::{IMDS_PORT, IMDS_V4, IMDS_V6};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};

/// What the kernel tells of an accepted connection.
pub(crate) trait Ingress: Send + Sync + 'static {
    /// Whether this local address is the metadata service's.
    fn is_imds(&self, local: SocketAddr) -> bool;

    /// The index of the interface that the connection came in by.
    ///
    /// # Errors
    /// The kernel's.
    fn interface(&self, connection: &TcpStream) -> io::Result<u32>;
}

/// The kernel itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelIngress;

impl Ingress for KernelIngress {
    fn is_imds(&self, local: SocketAddr) -> bool {
        let of_imds = match local.ip().to_canonical() {
            IpAddr::V4(address) => address.octets() == IMDS_V4,
            IpAddr::V6(address) => address.octets() == IMDS_V6,
        };
        of_imds && local.port() == IMDS_PORT
    }

    fn interface(&self, connection: &TcpStream) -> io::Result<u32> {
        sys::ingress_interface(connection, connection.local_addr()?.is_ipv6())
    }
}

/// The interfaces that pods are behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces(HashMap<u32, Option<u64>>);

impl Interfaces {
    /// As the parent lists them.
    pub(crate) fn new(interfaces: &[Interface]) -> Self {
        Self(interfaces.iter().map(|interface| (interface.index, interface.born_ms)).collect())
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Never v4-mapped.
    pub(crate) address: IpAddr,
    /// The index of the interface that the connection came in by; `None` when the kernel could not tell.
    pub(crate) interface: Option<u32>,
}

/// No pod is known to be behind the connection's interface.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unattributable;

impl Peer {
    /// Of a connection from `peer`.
    pub(crate) fn new(peer: SocketAddr, interface: io::Result<u32>) -> Self {
        let interface = interface
            .inspect_err(|error| tracing::warn!(%peer, %error, "the kernel does not tell a connection's interface"))
            .ok();
        Self { address: peer.ip().to_canonical(), interface }
    }

    /// The caller, once the parent has told of its interface: it does so before the interface can carry a connection,
    /// but its message may be on its way still.
    ///
    /// # Errors
    /// When it has not by the deadline.
    pub(crate) async fn caller(
        self,
        interfaces: &watch::Receiver<Arc<Interfaces>>,
        deadline: Instant,
    ) -> Result<Caller, Unattributable> {
        let Self { address, interface } = self;
        let interface = interface.ok_or(Unattributable)?;
        let known = |interfaces: &Interfaces| interfaces.0.get(&interface).copied();
        if let Some(interface_born_ms) = known(&interfaces.borrow()) {
            return Ok(Caller { address, interface_born_ms });
        }
        let mut interfaces = interfaces.clone();
        let told = interfaces.wait_for(|interfaces| known(interfaces).is_some());
        match timeout_at(deadline, told).await {
            Ok(Ok(interfaces)) => {
                let interface_born_ms = known(&interfaces).ok_or(Unattributable)?;
                Ok(Caller { address, interface_born_ms })
            }
            Ok(Err(_parent_gone)) => Err(Unattributable),
            Err(_elapsed) => Err(Unattributable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_m_is_m() {
        for (local, wanted) in [
            ("169.254.169.254:80", true),
            ("[::ffff:169.254.169.254]:80", true),
            ("[fd00:ec2::254]:80", true),
            ("169.254.169.254:81", false),
            ("169.254.169.253:80", false),
            ("127.0.0.1:80", false),
            ("[fd00:ec2::23]:80", false),
            ("[::1]:80", false),
            ("10.0.0.1:40000", false),
        ] {
            assert_eq!(KernelIngress.is_imds(local.parse().unwrap()), wanted, "{local}");
        }
    }

    fn interface(index: u32, born_ms: Option<u64>) -> Interface {
        Interface { index, name: format!("cali{index}"), born_ms, bridge: None }
    }

    fn peer(index: u32) -> Peer {
        Peer::new("[::ffff:10.0.0.7]:1234".parse().unwrap(), Ok(index))
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_interface_is_attributed_at_once() {
        let (_parent, interfaces) =
            watch::channel(Arc::new(Interfaces::new(&[interface(3, Some(5)), interface(4, None)])));
        let wanted = Caller { address: "10.0.0.7".parse().unwrap(), interface_born_ms: Some(5) };
        assert_eq!(peer(3).caller(&interfaces, Instant::now()).await, Ok(wanted));
        assert_eq!(peer(4).caller(&interfaces, Instant::now()).await.unwrap().interface_born_ms, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_interface_is_waited_for_but_not_for_ever() {
        let (parent, interfaces) = watch::channel(Arc::new(Interfaces::default()));
        let deadline = Instant::now() + Duration::from_millis(900);
        assert_eq!(peer(3).caller(&interfaces, deadline).await, Err(Unattributable));
        assert!(Instant::now() >= deadline);

        let deadline = Instant::now() + Duration::from_millis(900);
        let asked = peer(3).caller(&interfaces, deadline);
        let told = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            parent.send_replace(Arc::new(Interfaces::new(&[interface(9, None)])));
            parent.send_replace(Arc::new(Interfaces::new(&[interface(3, Some(7))])));
        };
        let (caller, ()) = tokio::join!(asked, told);
        assert_eq!(caller.unwrap().interface_born_ms, Some(7));
        assert!(Instant::now() < deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_interface_nobody_is_attributed_and_nothing_waited_for() {
        let (_parent, interfaces) = watch::channel(Arc::new(Interfaces::default()));
        let begin = Instant::now();
        let peer = Peer::new("10.0.0.7:1234".parse().unwrap(), Err(io::ErrorKind::NotFound.into()));
        assert_eq!(peer.caller(&interfaces, begin + Duration::from_secs(9)).await, Err(Unattributable));
        assert_eq!(Instant::now(), begin);
    }
}

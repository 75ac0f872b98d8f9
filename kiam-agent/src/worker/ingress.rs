//! The IMDS endpoint's source of facts about connections: the kernel, and the parent for what the worker may not read.

use super::attestation_client::AttestationClient;
use crate::{
    attestation::{Origin, Question},
    imds::{ArrivedBy, Ingress},
    sys,
};
use kiam_common::abi::{BY_HOOK_NODE, BY_HOOK_POD, IMDS_PORT, IMDS_V4, IMDS_V6};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::net::TcpStream;

/// Facts from the kernel.
#[derive(Debug, Clone)]
pub(crate) struct KernelIngress {
    client: AttestationClient,
    /// Addresses of the listening sockets: only cgroup hooks redirect pods' connections to them.
    own: Vec<SocketAddr>,
}

impl KernelIngress {
    /// Creates it for the listening sockets with the addresses `own`.
    pub(crate) const fn new(client: AttestationClient, own: Vec<SocketAddr>) -> Self {
        Self { client, own }
    }
}

impl Ingress for KernelIngress {
    fn arrived_by(&self, local: SocketAddr) -> Option<ArrivedBy> {
        let address = local.ip().to_canonical();
        let of_imds = match address {
            IpAddr::V4(address) => address.octets() == IMDS_V4,
            IpAddr::V6(address) => address.octets() == IMDS_V6,
        };
        if of_imds && local.port() == IMDS_PORT {
            return Some(ArrivedBy::Interface);
        }
        // A client on loopback is in the agent's network namespace, which is the node's.
        let hook = if address.is_loopback() { BY_HOOK_NODE } else { BY_HOOK_POD };
        self.own.contains(&SocketAddr::new(address, local.port())).then_some(ArrivedBy::Hook(hook))
    }

    fn interface(&self, connection: &TcpStream) -> io::Result<u32> {
        sys::ingress_interface(connection, connection.local_addr()?.is_ipv6())
    }

    fn attest(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static {
        self.client.ask(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_to_imds_or_a_listener() {
        let own = ["127.0.0.1:4001", "[::1]:4002", "10.8.0.1:4003"].map(|address| address.parse().unwrap());
        let ingress = KernelIngress::new(AttestationClient::disconnected(), own.to_vec());
        for (local, wanted) in [
            ("169.254.169.254:80", Some(ArrivedBy::Interface)),
            ("[::ffff:169.254.169.254]:80", Some(ArrivedBy::Interface)),
            ("[fd00:ec2::254]:80", Some(ArrivedBy::Interface)),
            ("127.0.0.1:4001", Some(ArrivedBy::Hook(BY_HOOK_NODE))),
            ("[::ffff:127.0.0.1]:4001", Some(ArrivedBy::Hook(BY_HOOK_NODE))),
            ("[::1]:4002", Some(ArrivedBy::Hook(BY_HOOK_NODE))),
            ("10.8.0.1:4003", Some(ArrivedBy::Hook(BY_HOOK_POD))),
            ("169.254.169.254:81", None),
            ("169.254.169.253:80", None),
            ("127.0.0.1:80", None),
            ("127.0.0.1:4003", None),
            ("10.8.0.1:4001", None),
            ("127.0.0.2:4001", None),
            ("[fd00:ec2::23]:80", None),
            ("10.0.0.1:40000", None),
        ] {
            assert_eq!(ingress.arrived_by(local.parse().unwrap()), wanted, "{local}");
        }
    }
}

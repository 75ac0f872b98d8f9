//! `--server-address`: the server that an agent or a health check connects to.

use super::port;
use rustls::pki_types::ServerName;
use std::{fmt, net::Ipv6Addr};

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host name or IP address, without brackets; the server's certificate must carry it.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Parses a host and a port. The host must be one that a certificate can carry.
pub fn server_address(text: &str) -> Result<ServerAddress, &'static str> {
    const WRONG: &str = "not a host and a port, like kiam-server:443 or [fd00::1]:443";
    let (host, number) = text.rsplit_once(':').ok_or(WRONG)?;
    let port = port(number)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or(WRONG)?;
            inner.parse::<Ipv6Addr>().map_err(|_not_v6| WRONG)?;
            inner
        }
        None => host,
    };
    ServerName::try_from(host).map_err(|_not_a_name| WRONG)?;
    Ok(ServerAddress { host: host.to_owned(), port })
}

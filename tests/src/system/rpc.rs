//! A connection to the server like an agent's, for tests of the server's answers to an agent.

use super::{System, server::PORT};
use crate::fakes::pki::{End, Flaw, SERVER_NAME};
use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use kiam_common::{proto::kiam_service_client::KiamServiceClient, tls};
use rustls::pki_types::ServerName;
use std::net::{Ipv4Addr, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// Client of kiam's service over mutual TLS.
pub type Rpc = KiamServiceClient<Channel>;

impl System {
    /// Connects to the server as an agent does, with an agent's certificate. Does not reconnect.
    pub async fn connect_as_agent(&self) -> Result<Rpc> {
        let files = self.pki.write(self.folder.path(), "test-client", End::Agent, Flaw::None)?;
        let files = tls::TlsFiles { ca: files.ca, cert: files.cert, key: files.key };
        let tcp = self.topology.node.enter(|| {
            let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("connect to the server")?;
            tcp.set_nodelay(true)?;
            tcp.set_nonblocking(true)?;
            Ok(tcp)
        })?;
        let connector = TlsConnector::from(tls::Client::load(&files)?.config());
        let tcp = tokio::net::TcpStream::from_std(tcp)?;
        let stream = connector.connect(ServerName::try_from(SERVER_NAME)?, tcp).await.context("TLS with the server")?;
        let mut stream = Some(TokioIo::new(stream));
        // The address is not used: the connection is already open.
        let endpoint = Endpoint::from_static("http://kiam-server");
        let channel = endpoint.connect_with_connector(tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
            async move { stream }
        }));
        Ok(KiamServiceClient::new(channel.await.context("HTTP/2 with the server")?))
    }
}

//! A bare hyper server: no routing, no checks, responses of the same size.

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kiam_tests::{
    fakes::http_server::{Body, Handler, HttpServer},
    node::netns::Netns,
};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

/// A running yardstick.
pub(super) struct Yardstick {
    _server: HttpServer,
}

impl Yardstick {
    /// Starts it on an address of the node, on the calling thread's core.
    pub(super) fn start(node: &Netns, address: SocketAddr, body_len: usize) -> Result<Self> {
        Self::serve(node.enter(|| Ok(TcpListener::bind(address)?))?, body_len)
    }

    /// Starts it on a listening socket.
    pub(super) fn serve(listener: TcpListener, body_len: usize) -> Result<Self> {
        let body = Bytes::from(vec![b'x'; body_len]);
        Ok(Self { _server: HttpServer::start(vec![listener], Arc::new(Fixed { body }))? })
    }
}

struct Fixed {
    body: Bytes,
}

impl Handler for Fixed {
    fn answer(&self, _peer: SocketAddr, _request: Request<Bytes>) -> Response<Body> {
        Response::new(Full::new(self.body.clone()).boxed())
    }
}

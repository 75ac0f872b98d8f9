//! Other processes of the node that listen where packets for the IMDS could end up: on port 80 of every address, over
//! TCP and UDP. They must never see a byte or a connection of a pod that sent a request to the IMDS.

use crate::{leaks, node::netns::Netns};
use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io::{ErrorKind, Read as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Interval at which the sockets are checked.
const POLL: Duration = Duration::from_millis(5);
/// Time a connection has to send something, in milliseconds.
const READ_MILLISECONDS: u64 = 200;

/// Listens on `[::]:port` and `0.0.0.0:port`, over TCP and UDP.
#[derive(Debug)]
pub struct Bystander {
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bystander {
    /// Starts listening in the node's namespace.
    pub fn start(node: &Netns, port: u16) -> Result<Self> {
        let (tcp, udp) = node.enter(|| {
            let tcp = [bind(Domain::IPV4, Type::STREAM, port)?, bind(Domain::IPV6, Type::STREAM, port)?];
            let udp = [bind(Domain::IPV4, Type::DGRAM, port)?, bind(Domain::IPV6, Type::DGRAM, port)?];
            Ok((tcp.map(TcpListener::from), udp.map(UdpSocket::from)))
        })?;
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = thread::Builder::new().name("bystander".to_owned()).spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    tcp.iter().for_each(|socket| look_at_listener(socket, &seen));
                    udp.iter().for_each(|socket| look_at_datagrams(socket, &seen));
                    thread::sleep(POLL);
                }
            }
        })?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Returns descriptions of everything received.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic under this lock").clone()
    }

    /// Asserts that nothing was received that a pod sent to the IMDS. The error begins with [`leaks::BYSTANDER`].
    pub fn expect_nothing(&self) -> Result<()> {
        // Waits until the sockets have been checked once more.
        thread::sleep(POLL * 4);
        let seen = self.seen();
        ensure!(seen.is_empty(), "{}: {seen:?}", leaks::BYSTANDER);
        Ok(())
    }

    /// Forgets what was received.
    pub fn forget(&self) {
        self.seen.lock().expect("no panic under this lock").clear();
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the bystander panicked: it may have missed traffic");
        }
    }
}

fn bind(domain: Domain, kind: Type, port: u16) -> Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    let any: SocketAddr = if domain == Domain::IPV4 {
        ([0, 0, 0, 0], port).into()
    } else {
        socket.set_only_v6(true)?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    };
    socket.bind(&SockAddr::from(any)).with_context(|| format!("bind {any}"))?;
    if kind == Type::STREAM {
        socket.listen(128)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn look_at_listener(listener: &TcpListener, seen: &Mutex<Vec<String>>) {
    while let Ok((mut connection, peer)) = listener.accept() {
        let local = connection.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let mut bytes = [0; 512];
        let timeout = connection
            .set_nonblocking(false)
            .and_then(|()| connection.set_read_timeout(Some(Duration::from_millis(READ_MILLISECONDS))));
        let length = timeout.and_then(|()| connection.read(&mut bytes)).unwrap_or(0);
        note(seen, format!("TCP {peer} to {local}: {:?}", String::from_utf8_lossy(&bytes[..length])));
    }
}

fn look_at_datagrams(socket: &UdpSocket, seen: &Mutex<Vec<String>>) {
    let mut bytes = [0; 512];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, peer)) => {
                note(seen, format!("UDP {peer}: {:?}", String::from_utf8_lossy(&bytes[..length])));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // An ICMP error for an earlier packet: nothing was received.
            Err(_) => return,
        }
    }
}

fn note(seen: &Mutex<Vec<String>>, what: String) {
    seen.lock().expect("no panic under this lock").push(what);
}

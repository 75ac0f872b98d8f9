//! Other processes of the node that listen where M's packets could end up: on port 80 of every address, over TCP and
//! UDP. They must never see a byte, nor a connection, of a pod that asked M.

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

/// How often the sockets are looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long a connection may take to say something, in milliseconds.
const READ_MILLISECONDS: u64 = 200;

/// Listens on `[::]:port` and `0.0.0.0:port`, TCP and UDP.
#[derive(Debug)]
pub struct Bystander {
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bystander {
    /// Starts listening in the node's namespace.
    ///
    /// # Errors
    /// The port is taken.
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

    /// What came, in words.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic under this lock").clone()
    }

    /// Asserts that nothing came that was sent to M.
    ///
    /// # Errors
    /// Something did; the error begins with [`leaks::BYSTANDER`].
    pub fn expect_nothing(&self) -> Result<()> {
        // What is in its sockets is looked at once more.
        thread::sleep(POLL * 4);
        let seen = self.seen();
        ensure!(seen.is_empty(), "{}: {seen:?}", leaks::BYSTANDER);
        Ok(())
    }

    /// Forgets what came.
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
            eprintln!("the bystander panicked: it saw less than came");
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
            // An ICMP error of something sent before: nothing was received.
            Err(_) => return,
        }
    }
}

fn note(seen: &Mutex<Vec<String>>, what: String) {
    seen.lock().expect("no panic under this lock").push(what);
}

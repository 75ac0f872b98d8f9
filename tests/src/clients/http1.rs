//! HTTP/1.1 by hand, one connection at a time, so that a test controls each segment that it causes. For use in a thread
//! that has entered a pod's namespace.

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Port of the IMDS.
const PORT: u16 = 80;
/// Bytes of the longest answer: every answer of the IMDS is shorter.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// An answer of the IMDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the body as text; empty if it is not text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// Returns the value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }
}

/// Outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was answered.
    Answer(Answer),
    /// The connection was refused: a RST for the SYN.
    Refused,
    /// The connection was reset later.
    Reset,
    /// The connection was closed without an answer.
    Closed,
    /// No answer arrived in time.
    Silent,
    /// Another error of the kernel, such as a missing route.
    Failed(String),
}

impl Reply {
    /// Returns the answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Refused | Self::Reset | Self::Closed | Self::Silent | Self::Failed(_) => None,
        }
    }

    /// Returns the outcome that an error of a [`Connection`] represents.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Self::Refused,
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Self::Reset,
            Some(ErrorKind::UnexpectedEof) => Self::Closed,
            Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => Self::Silent,
            _ => Self::Failed(format!("{error:#}")),
        }
    }
}

/// Sends a GET on a new connection and returns the outcome.
pub(super) fn attempt(imds: IpAddr, source_port: Option<u16>, path: &str, patience: Duration) -> Reply {
    let result = Connection::open(imds, source_port, patience)
        .and_then(|mut connection| connection.send("GET", path, &[]).and_then(|()| connection.answer()));
    match result {
        Ok(answer) => Reply::Answer(answer),
        Err(error) => Reply::of(&error),
    }
}

/// A connection to the IMDS.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes already read that belong to the next answer.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, from a chosen source port if one is given, and sets `patience` as the timeout of each later read. The
    /// error contains an [`io::Error`].
    pub fn open(imds: IpAddr, source_port: Option<u16>, patience: Duration) -> Result<Self> {
        let socket = Self::socket(imds, source_port)?;
        socket.connect_timeout(&SockAddr::from(SocketAddr::new(imds, PORT)), patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { stream: socket.into(), buffer: Vec::new() })
    }

    /// Sends the SYN and returns at once; [`Connection::finish`] waits for the rest.
    pub fn begin(imds: IpAddr, source_port: Option<u16>) -> Result<Socket> {
        let socket = Self::socket(imds, source_port)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::from(SocketAddr::new(imds, PORT))) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a connection begun with [`Connection::begin`] is open.
    pub fn finish(socket: Socket, patience: Duration) -> Result<Self> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut fds, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX))?;
        if ready == 0 {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
        if let Some(error) = socket.take_error()? {
            return Err(error.into());
        }
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { stream: socket.into(), buffer: Vec::new() })
    }

    fn socket(imds: IpAddr, source_port: Option<u16>) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(imds, PORT)), Type::STREAM, None)?;
        if let Some(port) = source_port {
            let any: IpAddr = if imds.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            // For a client that reuses its port at once.
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(SocketAddr::new(any, port))).with_context(|| format!("bind port {port}"))?;
        }
        Ok(socket)
    }

    /// Sends a request without a body.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send_raw(head.as_bytes())
    }

    /// Requests a session token, which the agent answers without the server. Fails if the answer is not the agent's.
    pub fn token(&mut self, headers: &[(&str, &str)]) -> Result<()> {
        let headers = [headers, &[("X-aws-ec2-metadata-token-ttl-seconds", "21600")]].concat();
        self.send("PUT", "/latest/api/token", &headers)?;
        let answer = self.answer()?;
        ensure!(answer.status == 200 && !answer.text().contains("canary"), "a token: {answer:?}");
        Ok(())
    }

    /// Sends raw bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Result<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).context("an HTTP head is ASCII")?;
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let Some(status) = status else { bail!("not HTTP: {status_line:?}") };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map(str::parse::<usize>).transpose()?;
        answer.body = match length {
            Some(length) => self.read_body(length)?,
            None => self.read_to_end()?,
        };
        Ok(answer)
    }

    /// Waits for the end of the connection, ignoring all data before it.
    #[must_use]
    pub fn end(mut self) -> Reply {
        loop {
            if let Err(error) = self.read_more() {
                return Reply::of(&error);
            }
        }
    }

    /// Returns the source port.
    pub fn source_port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Returns the stream itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read_body(&mut self, length: usize) -> Result<Vec<u8>> {
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        while self.buffer.len() < length {
            self.read_more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_to_end(&mut self) -> Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if Reply::of(&error) == Reply::Closed => return Ok(std::mem::take(&mut self.buffer)),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let mut piece = [0; 4096];
        let length = loop {
            match self.stream.read(&mut piece) {
                // The test was stopped for a moment: the kernel does not restart a read with a timeout.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if length == 0 {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        ensure!(self.buffer.len() < ANSWER_BYTES_MAX, "more than {ANSWER_BYTES_MAX} bytes");
        self.buffer.extend_from_slice(&piece[..length]);
        Ok(())
    }
}

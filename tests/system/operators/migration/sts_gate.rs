//! A gate in front of STS that denies one role, which moto never does.
#![expect(clippy::print_stderr, reason = "errors of its thread are printed with the test's output")]

use anyhow::{Context as _, Result, bail};
use kiam_tests::node::{netns::Netns, topology::STS_V4};
use nix::sys::socket::{Shutdown, shutdown};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread::JoinHandle,
    time::Duration,
};

/// Denied role.
pub(super) const DENIED: &str = "fail-role";
/// Port of the gate.
const PORT: u16 = 5001;
/// Port of STS.
const STS_PORT: u16 = 5000;
/// Bytes of the longest request: a signed AssumeRole has some 2 KiB.
const REQUEST_LEN_MAX: usize = 64 * 1024;
/// Timeout of a read from either side.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answer of STS to a caller that may not assume a role.
const DENIAL: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
    <Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error>\
    <RequestId>00000000-0000-4000-8000-000000000000</RequestId></ErrorResponse>";

/// A running gate.
pub(super) struct StsGate {
    listener: TcpListener,
    thread: Option<JoinHandle<Result<()>>>,
}

impl StsGate {
    /// Listens in the uplink's namespace.
    pub(super) fn start(uplink: &Netns) -> Result<Self> {
        let listener = uplink.enter(|| TcpListener::bind((STS_V4, PORT)).context("bind the gate of STS"))?;
        let accepting = listener.try_clone()?;
        let thread = uplink.spawn("sts-gate", move || {
            // Ends when the listener is shut down.
            while let Ok((client, _)) = accepting.accept() {
                if let Err(error) = pass(client) {
                    eprintln!("gate of STS: {error:#}");
                }
            }
            Ok(())
        })?;
        Ok(Self { listener, thread: Some(thread) })
    }

    /// Returns its URL, for the node.
    pub(super) fn endpoint() -> String {
        format!("http://{STS_V4}:{PORT}")
    }
}

impl Drop for StsGate {
    fn drop(&mut self) {
        let ended = shutdown(self.listener.as_raw_fd(), Shutdown::Both).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| ended)
            && thread.join().is_err()
        {
            eprintln!("the gate of STS panicked");
        }
    }
}

/// Answers one request: by itself if it is for the denied role, otherwise with the answer of STS.
fn pass(mut client: TcpStream) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let (head, body) = read(&mut client)?;
    if body.contains(DENIED) {
        let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n", DENIAL.len());
        return Ok(write!(client, "{head}Connection: close\r\n\r\n{DENIAL}")?);
    }
    let mut sts = TcpStream::connect((STS_V4, STS_PORT))?;
    sts.set_read_timeout(Some(PATIENCE))?;
    let kept = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head: Vec<&str> = kept.chain(["Connection: close"]).collect();
    write!(sts, "{}\r\n\r\n{body}", head.join("\r\n"))?;
    let mut answer = Vec::new();
    sts.read_to_end(&mut answer)?;
    Ok(client.write_all(&answer)?)
}

/// Reads the head and the body of a request.
fn read(client: &mut TcpStream) -> Result<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < REQUEST_LEN_MAX {
        let length = client.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let expected = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= expected.unwrap_or(0_usize) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        if length == 0 {
            bail!("it ended early: {text:?}");
        }
    }
    bail!("a request of more than {REQUEST_LEN_MAX} bytes")
}

//! The client's side: sequential requests, and as many parallel ones as possible.

use anyhow::{Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Requests per round whose latency is measured; a tenth of that number precedes them as warm-up.
const REQUESTS: usize = 10_000;
/// Parallel connections for the throughput.
pub(super) const CONNECTIONS: usize = 16;
/// Duration of the throughput measurement, per round.
const TIME: Duration = Duration::from_secs(3);
/// Longest response in bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// Target and path of the requests.
pub(super) struct Load {
    pub(super) target: SocketAddr,
    pub(super) path: String,
}

/// Result of a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) latency: Latency,
    pub(super) requests_per_second: f64,
}

/// Percentiles in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Figures {
    /// Returns the median of each figure.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            latency: Latency { p50: of(|round| round.latency.p50), p99: of(|round| round.latency.p99) },
            requests_per_second: of(|round| round.requests_per_second),
        }
    }
}

impl Load {
    /// Measures the latency of sequential requests on one kept-alive connection.
    pub(super) fn one_connection(&self) -> Result<Latency> {
        let mut client = Client::connect(self)?;
        for _ in 0..REQUESTS / 10 {
            client.request()?;
        }
        let mut took = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let start = Instant::now();
            client.request()?;
            took.push(start.elapsed().as_secs_f64());
        }
        took.sort_by(f64::total_cmp);
        Ok(Latency { p50: took[REQUESTS / 2], p99: took[REQUESTS * 99 / 100] })
    }

    /// Measures the requests per second over [`CONNECTIONS`] kept-alive connections.
    pub(super) fn many_connections(&self) -> Result<f64> {
        let clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(self)).collect::<Result<_>>()?;
        let start = Instant::now();
        let counts: Vec<Result<u32>> = thread::scope(|scope| {
            let threads: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(|| client.request_until(start + TIME))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
        });
        let requests: u32 = counts.into_iter().sum::<Result<u32>>()?;
        Ok(f64::from(requests) / start.elapsed().as_secs_f64())
    }
}

/// A kept-alive connection.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(load: &Load) -> Result<Self> {
        let stream = TcpStream::connect(load.target)?;
        stream.set_nodelay(true)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.path, load.target.ip());
        Ok(Self { stream, request: request.into_bytes(), buffer: vec![0; ANSWER_MAX] })
    }

    fn request_until(mut self, end: Instant) -> Result<u32> {
        let mut requests = 0;
        while Instant::now() < end {
            self.request()?;
            requests += 1;
        }
        Ok(requests)
    }

    /// Sends one request and reads the whole response, which must be a 200.
    fn request(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[read..])?;
            ensure!(more > 0, "the connection was closed");
            read += more;
            let text = std::str::from_utf8(&self.buffer[..read])?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                return Ok(());
            }
        }
    }
}

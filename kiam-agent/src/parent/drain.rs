//! Drains the listening sockets after a takeover and when the agent ends. Connections that pods have begun still belong
//! to these sockets: half-open ones have yet to be established, established ones wait to be accepted, and closing the
//! sockets would reset both.

use kiam_common::abi::{IMDS_PORT, IMDS_V4, IMDS_V6};
use rustix::fs::fstat;
use socket2::{SockFilter, SockRef};
use std::{collections::HashSet, fs, net::TcpListener, time::Duration};
use tokio::time::{Instant, sleep};

/// Minimum after a takeover: by then, packets on their way to the old sockets have arrived, and a lost SYN-ACK was sent
/// again (after 1 s, RFC 6298).
const DRAIN_TIME_MIN: Duration = Duration::from_millis(1_500);
/// Maximum after a takeover: a client that never completes its handshake keeps the connection half-open for a minute.
/// Together with the time that a worker may take to finish (7 s) this is below the pod's grace period.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(8);
/// Maximum when the agent ends: a lost SYN-ACK is sent again after a second.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Time between reads of the tables: the kernel sends no notification.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A classic BPF program that drops segments with SYN and without ACK. In a filter of a TCP socket, byte 13 contains
/// the flags of the header (linux/filter.h has the codes).
const NO_SYN: [SockFilter; 5] = [
    // Load the byte, keep SYN and ACK, compare with SYN alone.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    // Drop the segment, or pass all of it.
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Tables of TCP sockets (proc_net_tcp(5)).
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
const SYN_RECV: &str = "03";
const LISTEN: &str = "0A";

/// Waits until the queues of the sockets are empty; the worker and the fallback accept from them meanwhile.
pub(super) async fn until_empty(listeners: &[TcpListener]) {
    if !wait(&listeners.iter().collect::<Vec<_>>(), DRAIN_TIME_MIN, DRAIN_TIME_MAX).await {
        tracing::warn!(
            "connections from before the takeover are reset: they were not established within {DRAIN_TIME_MAX:?}"
        );
    }
}

/// Drops new SYNs to the sockets, as if the agent had ended already. The slots may contain another agent's sockets by
/// now, but these sockets are this agent's.
pub(super) fn shut(listeners: &[&TcpListener]) {
    for listener in listeners {
        if let Err(error) = SockRef::from(*listener).attach_filter(&NO_SYN) {
            tracing::warn!("cannot stop new connections to a listening socket: {error}");
        }
    }
}

/// Does as [`until_empty`] when the agent ends, on sockets that are shut.
pub(super) async fn until_done(listeners: &[&TcpListener]) {
    if !wait(listeners, Duration::ZERO, STOP_TIME_MAX).await {
        tracing::warn!("connections from before the end are reset: they were not established within {STOP_TIME_MAX:?}");
    }
}

/// Waits until the queues are empty, for `min` at least. Returns false if they are not within `max`.
async fn wait(listeners: &[&TcpListener], min: Duration, max: Duration) -> bool {
    let start = Instant::now();
    let ours: Vec<String> =
        listeners.iter().filter_map(|listener| Some(fstat(listener).ok()?.st_ino.to_string())).collect();
    let ends = local_ends(listeners);
    // After a takeover, some of these belong to the new sockets; later ones all do.
    let begun = read_queues(&ends).await.half_open;
    let is_empty = async || {
        let now = read_queues(&ends).await;
        let waiting: u32 = ours.iter().filter_map(|inode| now.waiting(inode)).sum();
        waiting == 0 && now.half_open.is_disjoint(&begun)
    };
    sleep(min).await;
    while start.elapsed() < max {
        // Twice: a connection that is established during a read may be missing in both queues of that read.
        if is_empty().await && is_empty().await {
            return true;
        }
        sleep(POLL_INTERVAL).await;
    }
    false
}

async fn read_queues(ends: &[String]) -> Queues {
    // A node with many connections has long tables.
    let read = || TABLES.map(|table| fs::read_to_string(table).unwrap_or_default());
    let tables = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    tables.iter().fold(Queues::default(), |mut queues, table| {
        queues.add(table, ends);
        queues
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Queues {
    /// Local and remote ends of half-open connections to IMDS.
    half_open: HashSet<(String, String)>,
    /// Inodes of listening sockets, and the numbers of connections that wait to be accepted.
    waiting: Vec<(String, u32)>,
}

impl Queues {
    /// Adds a table. A half-open connection counts if its local end has one of the suffixes `ends`.
    fn add(&mut self, table: &str, ends: &[String]) {
        for line in table.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields.as_slice() else { continue };
            match *state {
                SYN_RECV if ends.iter().any(|end| local.ends_with(end)) => {
                    self.half_open.insert(((*local).to_owned(), (*remote).to_owned()));
                }
                LISTEN => {
                    let waiting = queues.split_once(':').and_then(|(_, waiting)| u32::from_str_radix(waiting, 16).ok());
                    self.waiting.push(((*inode).to_owned(), waiting.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    fn waiting(&self, inode: &str) -> Option<u32> {
        self.waiting.iter().find(|(listening, _)| listening == inode).map(|&(_, waiting)| waiting)
    }
}

/// Returns suffixes of local ends: those of IMDS, for connections that TC programs assign to the sockets, and the
/// sockets' ports, for connections that cgroup hooks redirect.
fn local_ends(listeners: &[&TcpListener]) -> Vec<String> {
    let ports = listeners.iter().filter_map(|listener| Some(format!(":{:04X}", listener.local_addr().ok()?.port())));
    ports.chain([in_table(&IMDS_V4), in_table(&IMDS_V6)]).collect()
}

/// Returns an IMDS address as the tables contain it: in words of the machine's byte order.
fn in_table(address: &[u8]) -> String {
    let words = address.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{IMDS_PORT:04X}", words.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::TcpStream,
    };

    #[test]
    #[cfg(target_endian = "little")]
    fn half_open_and_waiting_connections_are_found() {
        let mut queues = Queues::default();
        queues.add(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:9C41 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4711 1 0\n\
             \x20  1: FEA9FEA9:0050 0100090A:D431 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0\n\
             \x20  2: FEA9FEA9:0050 0200090A:D432 01 00000000:00000000 00:00000000 00000000     0        0 9 1 0\n\
             \x20  3: 0100080A:0050 0300090A:D433 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0\n\
             \x20  4: 0100080A:9C41 0300090A:D434 03 00000000:00000000 01:00000064 00000000     0        0 0 1 0\n",
            &[in_table(&IMDS_V4), ":9C41".to_owned()],
        );
        let half_open = [("FEA9FEA9:0050", "0100090A:D431"), ("0100080A:9C41", "0300090A:D434")];
        assert_eq!(queues.half_open, half_open.map(|(local, remote)| (local.to_owned(), remote.to_owned())).into());
        assert_eq!(queues.waiting("4711"), Some(3));
        assert_eq!(queues.waiting("9"), None);
    }

    #[tokio::test]
    async fn shut_socket_keeps_earlier_connections_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        let mut early = connect().unwrap();
        shut(&[&listener]);
        assert_eq!(connect().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!wait(&[&listener], Duration::ZERO, Duration::from_millis(300)).await, "one waits");
        let (mut accepted, _) = listener.accept().unwrap();
        assert!(wait(&[&listener], Duration::ZERO, STOP_TIME_MAX).await);
        early.write_all(b"ask").unwrap();
        let mut asked = [0; 3];
        accepted.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"ask");
    }

    #[test]
    fn imds_address_is_in_machine_byte_order() {
        let expected = if cfg!(target_endian = "little") {
            ["FEA9FEA9:0050", "C20E00FD000000000000000054020000:0050"]
        } else {
            ["A9FEA9FE:0050", "FD000EC2000000000000000000000254:0050"]
        };
        assert_eq!([in_table(&IMDS_V4), in_table(&IMDS_V6)], expected);
    }
}

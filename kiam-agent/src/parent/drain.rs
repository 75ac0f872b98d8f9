//! After a hand-over, and at the agent's end: connections that pods have begun with the old listening sockets are still
//! theirs. The half-open ones become whole, the whole ones wait to be accepted, and closing the sockets now would reset
//! both.

use kiam_common::abi::{IMDS_PORT, IMDS_V4, IMDS_V6};
use rustix::fs::fstat;
use socket2::{SockFilter, SockRef};
use std::{collections::HashSet, fs, net::TcpListener, time::Duration};
use tokio::time::{Instant, sleep};

/// The least time: packets that were on their way to the old sockets have arrived, and a lost answer was sent again
/// (after 1 s, RFC 6298).
const DRAIN_TIME_MIN: Duration = Duration::from_millis(1_500);
/// The most: a client that never completes its connection would hold it half-open for a minute. With what a worker may
/// take to finish (7 s) it stays below the grace period of the pod.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(8);
/// The most at the agent's end: an answer to a SYN that was lost is sent again after a second.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two looks: the kernel does not tell.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A classic BPF program that drops segments with SYN and without ACK. For a filter of a TCP socket, byte 13 is the
/// header's flags (linux/filter.h has the codes).
const NO_SYN: [SockFilter; 5] = [
    // Load the byte; keep SYN and ACK; is it SYN alone?
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    // Nothing of it, or all of it.
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Connections to M by socket, as `/proc/net/tcp` has them (proc_net_tcp(5)).
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
const SYN_RECV: &str = "03";
const LISTEN: &str = "0A";

/// Waits until nothing is left in the queues of the sockets, which others accept from meanwhile.
pub(super) async fn until_empty(listeners: &[TcpListener]) {
    if !wait(&listeners.iter().collect::<Vec<_>>(), DRAIN_TIME_MIN, DRAIN_TIME_MAX).await {
        tracing::warn!(
            "connections that were begun before the hand-over are cut off: they did not come about in {DRAIN_TIME_MAX:?}"
        );
    }
}

/// Lets no connection begin on the sockets any more: a client that comes now gets silence, as from an agent that has
/// gone. The slots may be another agent's by now; these sockets are not.
pub(super) fn shut(listeners: &[&TcpListener]) {
    for listener in listeners {
        if let Err(error) = SockRef::from(*listener).attach_filter(&NO_SYN) {
            tracing::warn!("a listening socket goes on taking connections: {error}");
        }
    }
}

/// As [`until_empty`], at the agent's end, on sockets that are shut.
pub(super) async fn until_done(listeners: &[&TcpListener]) {
    if !wait(listeners, Duration::ZERO, STOP_TIME_MAX).await {
        tracing::warn!(
            "connections that were begun before the end are cut off: they did not come about in {STOP_TIME_MAX:?}"
        );
    }
}

/// Whether the queues were empty in time.
async fn wait(listeners: &[&TcpListener], least: Duration, most: Duration) -> bool {
    let start = Instant::now();
    let ours: Vec<String> =
        listeners.iter().filter_map(|listener| Some(fstat(listener).ok()?.st_ino.to_string())).collect();
    let ends = local_ends(listeners);
    // Of the new sockets are some among them; those that come later are not.
    let begun = look(&ends).await.half_open;
    let is_empty = async || {
        let now = look(&ends).await;
        let waiting: u32 = ours.iter().filter_map(|inode| now.waiting(inode)).sum();
        waiting == 0 && now.half_open.is_disjoint(&begun)
    };
    sleep(least).await;
    while start.elapsed() < most {
        // Twice: a connection that became whole within one look may have been in neither queue when that was read.
        if is_empty().await && is_empty().await {
            return true;
        }
        sleep(POLL_INTERVAL).await;
    }
    false
}

async fn look(ends: &[String]) -> Queues {
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
    /// Local and remote end of connections to M that are not complete.
    half_open: HashSet<(String, String)>,
    /// Listening sockets' inodes, and how many connections wait there.
    waiting: Vec<(String, u32)>,
}

impl Queues {
    /// `ends`: what the local end of a connection that may be ours ends with.
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

/// M, for connections that are assigned to the sockets; and the ports of the sockets, for those that are sent there.
fn local_ends(listeners: &[&TcpListener]) -> Vec<String> {
    let ports = listeners.iter().filter_map(|listener| Some(format!(":{:04X}", listener.local_addr().ok()?.port())));
    ports.chain([in_table(&IMDS_V4), in_table(&IMDS_V6)]).collect()
}

/// M as the tables write it: words of the machine's own order.
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
    fn half_open_connections_to_m_and_waiting_ones_are_found() {
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
    async fn a_socket_that_is_shut_has_those_who_came_before_and_nobody_else() {
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
    fn m_is_written_in_words_of_the_machine() {
        let expected = if cfg!(target_endian = "little") {
            ["FEA9FEA9:0050", "C20E00FD000000000000000054020000:0050"]
        } else {
            ["A9FEA9FE:0050", "FD000EC2000000000000000000000254:0050"]
        };
        assert_eq!([in_table(&IMDS_V4), in_table(&IMDS_V6)], expected);
    }
}

//! Many connections at once.

use super::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files: both ends of all connections are in this process.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 4_096, "this test needs `ulimit -Hn` of 4096");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).unwrap();
}

/// Waits until that many connections are open.
async fn until_open(open: &Open, wanted: usize) {
    let line = format!("kiam_agent_connections {wanted}");
    let counted = async {
        while !open.metrics().lines().any(|found| found == line) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(Duration::from_secs(2), counted).await;
    assert!(waited.is_ok(), "no {wanted} connections: {}", open.metrics());
}

async fn served(stream: &mut TcpStream) {
    stream.write_all(format!("GET {SC} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(one(stream).await.body, "role-a");
}

#[tokio::test]
async fn connection_65_of_a_pod_gets_429() {
    raise_descriptors();
    let open = open(ImdsV1::Allow).await;
    let mut streams = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_POD_MAX {
        let mut stream = open.connect(PERMITTED).await;
        served(&mut stream).await;
        streams.push(stream);
    }
    let request = format!("GET {SC} HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = Reply::parse(&open.raw(PERMITTED, &request).await);
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert_eq!(open.get(OTHER, SC).await.body, "role-a", "other pods are not affected");
    streams.pop();
    until_open(&open, limits::CONNECTIONS_PER_POD_MAX - 1).await;
    assert_eq!(open.get(PERMITTED, SC).await.body, "role-a");
}

#[tokio::test]
async fn new_pod_gets_in_when_all_slots_are_taken() {
    raise_descriptors();
    let open = open(ImdsV1::Allow).await;
    // 15 pods hold 64 each, and 64 pods hold one: all of them at rest.
    let mut streams = Vec::new();
    for n in 0..limits::CONNECTIONS_MAX {
        let holder = if n < 960 { 10 + n / 64 } else { 30 + (n - 960) };
        let mut stream = open.connect(pod(u8::try_from(holder).unwrap())).await;
        served(&mut stream).await;
        streams.push(stream);
    }
    until_open(&open, limits::CONNECTIONS_MAX).await;
    // A holder of some slots must wait and gets 429.
    let request = format!("GET {SC} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(Reply::parse(&open.raw(pod(95 - 2), &request).await).status, 429);
    // New pods get in, one after another, and only large holders lose slots.
    for n in 1..=20 {
        let mut stream = open.connect(Ipv4Addr::new(127, 0, 2, n)).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.body, "role-a");
        streams.push(stream);
    }
    assert!(
        open.metrics().contains(r#"kiam_agent_connections_ended_total{reason="evicted"} 20"#),
        "{}",
        open.metrics()
    );
    for stream in &mut streams[960..limits::CONNECTIONS_MAX] {
        served(stream).await;
    }
}

#[tokio::test]
async fn closed_connections_free_their_slots() {
    let open = open(ImdsV1::Allow).await;
    for round in 0..200 {
        let stream = open.connect(PERMITTED).await;
        if round % 2 == 0 {
            drop(stream);
        } else {
            stream.set_zero_linger().unwrap();
        }
    }
    until_open(&open, 0).await;
}

//! Slow clients, in real time: each test takes as long as the limit that it tests.

use super::*;

/// Returns the time until the server ends the connection, and what it sent.
async fn ended(stream: &mut TcpStream) -> (Duration, String) {
    let begin = Instant::now();
    let mut bytes = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open") {
        Ok(_) => {}
        // Unread bytes turn the end into a reset.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    (begin.elapsed(), String::from_utf8(bytes).unwrap())
}

fn assert_about(took: Duration, wanted: Duration) {
    let slack = Duration::from_millis(900);
    assert!(took + Duration::from_millis(100) > wanted && took < wanted + slack, "{took:?} instead of {wanted:?}");
}

#[tokio::test]
async fn silent_connection_is_ended() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    let (took, sent) = ended(&mut stream).await;
    assert_about(took, limits::HEAD_TIME_MAX);
    assert_eq!(sent, "");
    assert!(open.metrics().contains(r#"kiam_agent_connections_ended_total{reason="slow-head"} 1"#));
}

#[tokio::test]
async fn slow_head_is_cut_off_despite_progress() {
    let open = open(ImdsV1::Allow).await;
    let (mut reader, mut writer) = open.connect(PERMITTED).await.into_split();
    let dribble = tokio::spawn(async move {
        for byte in "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1\r\nHost: x\r\n".bytes() {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let begin = Instant::now();
    let mut bytes = Vec::new();
    drop(timeout(PATIENCE, reader.read_to_end(&mut bytes)).await.expect("the connection stays open"));
    assert_about(begin.elapsed(), limits::HEAD_TIME_MAX);
    assert!(bytes.is_empty());
    dribble.abort();
}

#[tokio::test]
async fn second_head_has_its_limit_too() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    let request = format!("GET {SC} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.body, "role-a");
    sleep(limits::REQUEST_TIME_MAX + Duration::from_millis(500)).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.body, "role-a", "idle time does not count");
    stream.write_all(b"GET /").await.unwrap();
    assert_about(ended(&mut stream).await.0, limits::HEAD_TIME_MAX);
}

#[tokio::test]
async fn slow_body_is_awaited_but_not_forever() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    let request = format!("GET {SC} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nxx");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_about(ended(&mut stream).await.0, limits::REQUEST_TIME_MAX);
}

#[tokio::test]
async fn client_that_does_not_read_is_cut_off() {
    let open = open(ImdsV1::Allow).await;
    // A small buffer is soon full of answers; a large one holds tens of thousands of them.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.bind((PERMITTED, 0).into()).unwrap();
    let mut stream = socket.connect(open.address).await.unwrap();
    let request = format!("GET {SC}/role-a HTTP/1.1\r\nHost: x\r\n\r\n").repeat(100);
    // Writes until the buffers of the other side are full as well and nothing moves.
    let begin = Instant::now();
    let mut moved = begin;
    loop {
        match timeout(Duration::from_millis(100), stream.write(request.as_bytes())).await {
            Ok(Ok(_)) => {
                moved = Instant::now();
                assert!(moved - begin < PATIENCE, "the agent reads on and on");
            }
            Ok(Err(_)) => break,
            // Requests that the agent has already read are answered first.
            Err(_elapsed) => {
                assert!(moved.elapsed() < limits::REQUEST_TIME_MAX + PATIENCE, "the client is never cut off");
            }
        }
    }
    assert!(moved.elapsed() > Duration::from_secs(2), "cut off at once");
    assert!(open.metrics().contains(r#"reason="slow-request"} 1"#));
}

#[tokio::test]
async fn good_pods_are_served_meanwhile() {
    let open = open(ImdsV1::Allow).await;
    let mut slow = Vec::new();
    for n in 0..60 {
        let mut stream = open.connect(if n % 2 == 0 { OTHER } else { NO_ROLE }).await;
        stream.write_all(b"GET /latest/meta-data").await.unwrap();
        slow.push(stream);
    }
    let begin = Instant::now();
    for _ in 0..50 {
        assert_eq!(open.get(PERMITTED, SC).await.body, "role-a");
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(slow);
}

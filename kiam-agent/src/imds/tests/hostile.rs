//! Requests of hostile clients.

use super::*;

/// A request that two parsers could read differently is refused, and its connection ends.
#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_connection() {
    let open = open(ImdsV1::Allow).await;
    let get = |line: &str, headers: &str| format!("{line}\r\nHost: x\r\n{headers}\r\n");
    let good = "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1";
    let many_headers: String = (0..40).map(|n| format!("X-{n}: y\r\n")).collect();
    let too_many_headers: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long_header = format!("X-Long: {}\r\n", "y".repeat(20 * 1024));
    let long_path = format!("GET {SC}/{} HTTP/1.1", "r".repeat(2 * 1024));
    let long_query = format!("GET {SC}?{} HTTP/1.1", "r".repeat(2 * 1024));
    let endless_path = format!("GET /{} HTTP/1.1", "r".repeat(100 * 1024));
    for (what, request, status) in [
        ("an absolute target", get("GET http://169.254.169.254/latest/user-data HTTP/1.1", ""), 400),
        ("another host's target", get("GET http://127.0.0.1/latest/user-data HTTP/1.1", ""), 400),
        ("CONNECT", get("CONNECT 169.254.169.254:80 HTTP/1.1", ""), 400),
        ("a star", get("OPTIONS * HTTP/1.1", ""), 400),
        ("dots", get("GET /latest/../latest/user-data HTTP/1.1", ""), 400),
        ("two slashes", get("GET //latest/user-data HTTP/1.1", ""), 400),
        ("an encoded slash", get("GET /latest%2fuser-data HTTP/1.1", ""), 400),
        ("an encoded NUL", get("GET /latest/user-data%00 HTTP/1.1", ""), 400),
        ("a long path", get(&long_path, ""), 400),
        ("a long query", get(&long_query, ""), 400),
        ("two lengths", get(good, "Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        ("a length and chunks", get(good, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
        ("chunks and a length", get(good, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n", 400),
        ("chunks", get(good, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
        ("no known encoding", get(good, "Transfer-Encoding: xchunked\r\n"), 400),
        ("two encodings", get(good, "Transfer-Encoding: chunked, identity\r\n"), 400),
        ("a signed length", get(good, "Content-Length: +5\r\n"), 400),
        ("a negative length", get(good, "Content-Length: -5\r\n"), 400),
        ("a length in hex", get(good, "Content-Length: 0x5\r\n"), 400),
        ("a huge length", get(good, "Content-Length: 99999999999999999999\r\n"), 400),
        ("a long body", get(good, "Content-Length: 5000\r\n") + &"y".repeat(5000), 400),
        ("a folded header", get(good, "X-A: b\r\n c\r\n"), 400),
        ("a space before the colon", get(good, "X-A : b\r\n"), 400),
        ("a header without a name", get(good, ": b\r\n"), 400),
        ("a NUL in a header", get(good, "X-A: \0\r\n"), 400),
        ("a lone CR", get("GET /latest/user-data\rX HTTP/1.1", ""), 400),
        ("no version", get("GET /latest/user-data", ""), 400),
        ("another version", get("GET /latest/user-data HTTP/2.0", ""), 400),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned() + &"\0".repeat(64), 400),
        ("many headers", get(good, &many_headers), 400),
        ("too many headers", get(good, &too_many_headers), 431),
        ("a long header", get(good, &long_header), 431),
        ("an endless path", get(&endless_path, ""), 431),
    ] {
        let mut stream = open.connect(PERMITTED).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        if status == 0 {
            assert_eq!(answer, "", "{what}");
            continue;
        }
        assert_eq!(Reply::parse(&answer).status, status, "{what}: {answer}");
        assert!(!answer.contains("role-a"), "{what}: {answer}");
    }
    assert_eq!(open.get(PERMITTED, SC).await.body, "role-a", "and it goes on");
}

#[tokio::test]
async fn answer_arrives_although_bytes_are_unread() {
    let open = open(ImdsV1::Allow).await;
    let body = "y".repeat(12 * 1024);
    let head = format!("POST {SC} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..20 {
        let mut stream = open.connect(PERMITTED).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        // The request was refused by its head. If the connection were closed by now, this would be answered with a
        // reset, after which nothing more can be written, and some clients' systems discard what they had received.
        stream.write_all(body.as_bytes()).await.unwrap();
        assert_eq!(Reply::parse(&rest(&mut stream).await).status, 400);
        stream.write_all(b"y").await.unwrap();
    }
}

#[tokio::test]
async fn request_after_a_refused_one_is_not_read() {
    let open = open(ImdsV1::Allow).await;
    let smuggled = format!("GET {SC} HTTP/1.1\r\nHost: x\r\n\r\n");
    for headers in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len()),
        "Content-Length: 9999\r\n".into(),
    ] {
        let request = format!("GET {SC} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{smuggled}");
        let answers = open.raw(PERMITTED, request).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert_eq!(Reply::parse(&answers).status, 400);
    }
}

#[tokio::test]
async fn connection_to_another_address_gets_no_byte() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.kernel().arrived_by = None;
    let mut stream = open.connect(PERMITTED).await;
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(matches!(read, Ok(0)), "{read:?}");
    assert!(open.metrics().contains(r#"kiam_agent_connections_ended_total{reason="not-imds"} 1"#));
}

#[tokio::test]
async fn unknown_interface_gets_no_credentials() {
    let open = open(ImdsV1::Allow).await;
    open.ingress.kernel().interface = 99;
    open.ingress.kernel().origin = Some(Origin { interface: 99, kubepods: false, owner: SocketOwner::NotAPod });
    assert!(!open.token(PERMITTED, 60).await.is_empty(), "tokens depend on nothing");
    let begin = Instant::now();
    let reply = open.get(PERMITTED, &format!("{SC}/role-a")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("belongs to no known pod"), "{}", reply.body);
    let took = begin.elapsed();
    assert!(took >= limits::ANSWER_TIME_MAX && took < Duration::from_secs(3), "{took:?}");

    let attestation = open.get(PERMITTED, SC);
    let report = async {
        sleep(Duration::from_millis(100)).await;
        open.interfaces.send_replace(known(&[INTERFACE, 99]));
    };
    let (reply, ()) = tokio::join!(attestation, report);
    assert_eq!(reply.body, "role-a", "the parent's message came in time");
}

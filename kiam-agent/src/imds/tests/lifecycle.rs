//! Connections with more than one request, old clients, and the stop of the agent.

use super::*;

fn get(version: &str, target: &str, headers: &str) -> String {
    format!("GET {target} {version}\r\nHost: x\r\n{headers}\r\n")
}

#[tokio::test]
async fn connection_carries_many_requests() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    for round in 0..100 {
        let (target, wanted) =
            if round % 2 == 0 { (SC.to_owned(), "role-a") } else { (format!("{SC}/role-a"), DOCUMENT) };
        stream.write_all(get("HTTP/1.1", &target, "").as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.body, wanted, "{round}");
    }
    // Errors that are not ambiguous do not end the connection.
    for target in ["/latest/user-data", &format!("{SC}/role-b")] {
        stream.write_all(get("HTTP/1.1", target, "").as_bytes()).await.unwrap();
        assert!(one(&mut stream).await.status >= 400);
    }
    stream.write_all(get("HTTP/1.1", SC, "Connection: close\r\n").as_bytes()).await.unwrap();
    assert_eq!(Reply::parse(&rest(&mut stream).await).body, "role-a");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let open = open(ImdsV1::Allow).await;
    let requests = [
        get("HTTP/1.1", SC, ""),
        get("HTTP/1.1", "/latest/user-data", ""),
        get("HTTP/1.1", &format!("{SC}/role-a"), ""),
        get("HTTP/1.1", SC, "Connection: close\r\n"),
    ];
    let answers = open.raw(PERMITTED, requests.concat()).await;
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200", "200"]);
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let open = open(ImdsV1::Allow).await;
    let reply = Reply::parse(&open.raw(PERMITTED, format!("GET {SC}/ HTTP/1.0\r\n\r\n")).await);
    assert_eq!((reply.status, reply.body.as_str()), (200, "role-a"));
    let mut stream = open.connect(PERMITTED).await;
    for _ in 0..2 {
        stream.write_all(get("HTTP/1.0", SC, "Connection: keep-alive\r\n").as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.body, "role-a");
    }
}

#[tokio::test]
async fn small_bodies_are_accepted() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    for _ in 0..2 {
        let request = get("HTTP/1.1", SC, "Content-Length: 5\r\n") + "hello";
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.body, "role-a");
    }
    let put = "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
               Content-Length: 0\r\n\r\n";
    stream.write_all(put.as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.status, 200);
}

#[tokio::test]
async fn half_closed_client_is_still_answered() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    stream.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.body, "role-a");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn stop_drains_requests_and_accepts_no_more() {
    let open = open(ImdsV1::Allow).await;
    let mut resting = open.connect(PERMITTED).await;
    resting.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
    one(&mut resting).await;
    let mut busy = open.connect(SLOW).await;
    busy.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
    let mut new = open.connect(OTHER).await;
    let begun = timeout(PATIENCE, async {
        while !open.metrics().contains("kiam_agent_connections 3") {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(50)).await;
    });
    begun.await.unwrap();

    let begin = Instant::now();
    let begins = async {
        // By now idle connections have ended; a new one must not have.
        assert_eq!(rest(&mut resting).await, "");
        new.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
        (one(&mut new).await, rest(&mut new).await)
    };
    let ((), answer, (first, second)) = tokio::join!(open.server.stop(PATIENCE), one(&mut busy), begins);
    assert_eq!(answer.body, "role-a");
    assert_eq!((first.body.as_str(), second.as_str()), ("role-a", ""), "exactly one request is answered");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    open.accepting.await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    assert!(socket.connect(open.address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn stop_does_not_wait_forever() {
    let open = open(ImdsV1::Allow).await;
    let mut stuck = open.connect(PERMITTED).await;
    stuck.write_all(get("HTTP/1.1", SC, "Content-Length: 100\r\n").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    open.server.stop(Duration::from_millis(300)).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(1), "{took:?}");
}

/// Returns an idle connection, on which one request was answered.
async fn resting(open: &Open, from: Ipv4Addr) -> TcpStream {
    let mut stream = open.connect(from).await;
    stream.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.body, "role-a");
    stream
}

/// Stops the agent after it has read the first part of a request, sends the other part a moment later, and returns the
/// answer.
async fn stop_within(open: &Open, stream: &mut TcpStream, first: &str, second: &str) -> Reply {
    stream.write_all(first.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let request = async {
        sleep(Duration::from_millis(100)).await;
        stream.write_all(second.as_bytes()).await.unwrap();
        Reply::parse(&rest(stream).await)
    };
    tokio::join!(open.server.stop(PATIENCE), request).1
}

fn assert_last_answer(reply: &Reply) {
    assert_eq!((reply.status, reply.body.as_str()), (200, "role-a"));
    assert_eq!(reply.header("connection"), Some("close"), "the client must not use this connection again");
}

/// A request is answered if the agent has read a part of its head when it stops.
#[tokio::test]
async fn stop_answers_a_request_with_half_a_head() {
    let request = get("HTTP/1.1", SC, "");
    for half in [1, request.len() / 2, request.len() - 1] {
        let open = open(ImdsV1::Allow).await;
        let (first, second) = request.split_at(half);
        let mut new = open.connect(PERMITTED).await;
        assert_last_answer(&stop_within(&open, &mut new, first, second).await);
    }
    let open = open(ImdsV1::Allow).await;
    let (first, second) = request.split_at(request.len() / 2);
    let mut kept = resting(&open, PERMITTED).await;
    assert_last_answer(&stop_within(&open, &mut kept, first, second).await);
}

/// A client is answered if it has connected and sent nothing when the agent stops.
#[tokio::test]
async fn stop_answers_a_new_connection() {
    let open = open(ImdsV1::Allow).await;
    let mut new = open.connect(PERMITTED).await;
    assert_last_answer(&stop_within(&open, &mut new, "", &get("HTTP/1.1", SC, "")).await);
}

#[tokio::test]
async fn stop_answers_a_request_in_progress() {
    let open = open(ImdsV1::Allow).await;
    let mut busy = open.connect(SLOW).await;
    assert_last_answer(&stop_within(&open, &mut busy, &get("HTTP/1.1", SC, ""), "").await);
}

/// A request on an idle connection is answered if it has arrived when the agent stops. The test has one thread, so
/// nothing reads the request between its arrival and the stop.
#[tokio::test]
async fn stop_answers_unread_requests_of_idle_connections() {
    for sent in [get("HTTP/1.1", SC, "").as_str(), "GET "] {
        let open = open(ImdsV1::Allow).await;
        let mut kept = resting(&open, PERMITTED).await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(kept.try_write(sent.as_bytes()).unwrap(), sent.len());
        let request = async {
            let request = get("HTTP/1.1", SC, "");
            kept.write_all(&request.as_bytes()[sent.len()..]).await.unwrap();
            Reply::parse(&rest(&mut kept).await)
        };
        assert_last_answer(&tokio::join!(open.server.stop(PATIENCE), request).1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_waits_for_a_just_accepted_connection() {
    let open = open(ImdsV1::Allow).await;
    let (kernel, address) = (open.ingress.clone(), open.address);
    let (accepted, is_accepted) = tokio::sync::oneshot::channel();
    let client = std::thread::spawn(move || {
        // The accepted connection waits for this lock and has no slot yet.
        let held = kernel.kernel();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        io::Write::write_all(&mut stream, get("HTTP/1.1", SC, "").as_bytes()).unwrap();
        while kernel.1.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        accepted.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
        stream
    });
    is_accepted.await.unwrap();
    open.server.stop(PATIENCE).await;
    let mut stream = client.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut stream, &mut bytes).expect("the stop returned before the connection ended");
    assert_last_answer(&Reply::parse(std::str::from_utf8(&bytes).unwrap()));
}

/// A connection that waits to be accepted is answered at a stop if no other process accepts from the socket. The test
/// has one thread, so the connection is not accepted before the stop.
#[tokio::test]
async fn stop_accepts_waiting_connections_if_alone() {
    let open = open(ImdsV1::Allow).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, ingress) = (Arc::clone(&open.server), open.ingress.clone());
    let accepting = tokio::spawn(async move { server.accept_from(listener, &ingress, true).await });
    sleep(Duration::from_millis(50)).await;
    let mut waiting = std::net::TcpStream::connect(address).unwrap();
    io::Write::write_all(&mut waiting, get("HTTP/1.1", SC, "").as_bytes()).unwrap();
    open.server.stop(PATIENCE).await;
    accepting.await.unwrap();
    waiting.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut waiting, &mut bytes).expect("it was not answered");
    assert_last_answer(&Reply::parse(std::str::from_utf8(&bytes).unwrap()));
}

//! Connections that carry more than one request, old clients, and the agent's end.

use super::*;

fn get(version: &str, target: &str, headers: &str) -> String {
    format!("GET {target} {version}\r\nHost: x\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    for round in 0..100 {
        let (target, wanted) =
            if round % 2 == 0 { (SC.to_owned(), "role-a") } else { (format!("{SC}/role-a"), DOCUMENT) };
        stream.write_all(get("HTTP/1.1", &target, "").as_bytes()).await.unwrap();
        assert_eq!(one(&mut stream).await.body, wanted, "{round}");
    }
    // What is wrong, but clear, ends nothing.
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
    let told = open.raw(PERMITTED, requests.concat()).await;
    let statuses: Vec<&str> = told.match_indices("HTTP/1.1 ").map(|(at, _)| &told[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200", "200"]);
}

#[tokio::test]
async fn clients_of_http_1_0() {
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
async fn small_bodies_hurt_nobody() {
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
async fn a_client_that_ends_its_side_is_still_answered() {
    let open = open(ImdsV1::Allow).await;
    let mut stream = open.connect(PERMITTED).await;
    stream.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
    assert_eq!(one(&mut stream).await.body, "role-a");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_no_other_begin() {
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
        // By now those at rest have ended, and this one would have, too.
        assert_eq!(rest(&mut resting).await, "");
        new.write_all(get("HTTP/1.1", SC, "").as_bytes()).await.unwrap();
        (one(&mut new).await, rest(&mut new).await)
    };
    let ((), answer, (first, second)) = tokio::join!(open.service.stop(PATIENCE), one(&mut busy), begins);
    assert_eq!(answer.body, "role-a");
    assert_eq!((first.body.as_str(), second.as_str()), ("role-a", ""), "one request is answered, and that is all");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    open.accepting.await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    assert!(socket.connect(open.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let open = open(ImdsV1::Allow).await;
    let mut stuck = open.connect(PERMITTED).await;
    stuck.write_all(get("HTTP/1.1", SC, "Content-Length: 100\r\n").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    open.service.stop(Duration::from_millis(300)).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(1), "{took:?}");
}

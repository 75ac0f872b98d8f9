//! The admin endpoint over real sockets.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Handler {
    healthy: bool,
}

impl AdminHandler for Handler {
    fn health(&self) -> Result<String, String> {
        if self.healthy { Ok("ok".to_owned()) } else { Err("pods: not synced yet".to_owned()) }
    }

    fn metrics(&self) -> Option<String> {
        self.healthy.then(|| "# EOF\n".to_owned())
    }
}

async fn exchange(healthy: bool, request: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, Arc::new(Handler { healthy })));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    server.abort();
    String::from_utf8(answer).unwrap()
}

async fn get(healthy: bool, path: &str) -> String {
    exchange(healthy, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn answers_each_path() {
    for (healthy, path, status, body) in [
        (true, "/ping", "200", "pong"),
        (false, "/ping", "200", "pong"),
        (true, "/health", "200", "ok"),
        (false, "/health", "503", "pods: not synced yet"),
        (true, "/metrics", "200", "# EOF\n"),
        (false, "/metrics", "404", "not found: there are /ping, /health and /metrics\n"),
        (true, "/", "404", "not found: there are /ping, /health and /metrics\n"),
    ] {
        let answer = get(healthy, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn refuses_other_methods_and_long_heads() {
    let answer =
        exchange(true, b"POST /ping HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    let long = format!("GET /ping HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
    let answer = exchange(true, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_silent_client_is_dropped() {
    let dropped = tokio::time::timeout(HEAD_TIMEOUT * 3, exchange(true, b"GET /ping HTT"));
    let answer = dropped.await.expect("dropped in time");
    assert!(!answer.contains("200"), "{answer}");
}

//! Answers to well-behaved clients.

use super::*;

#[tokio::test]
async fn paths_statuses_and_bodies() {
    let open = open(ImdsV1::Allow).await;
    let arn = format!("{SC}/arn:aws:iam::123456789012:role/role-a");
    let blocked = |path: &str| format!("request blocked by allow-route-regexp \"^$\": {path}\n");
    for (from, target, status, body) in [
        (PERMITTED, format!("{SC}/"), 200, "role-a".to_owned()),
        (PERMITTED, SC.to_owned(), 200, "role-a".to_owned()),
        (PERMITTED, format!("{SC}?x=1"), 200, "role-a".to_owned()),
        (PERMITTED, format!("{SC}/?ip=127.0.1.3"), 200, "role-a".to_owned()),
        (PERMITTED, "/2021-07-15/meta-data/iam/security-credentials/".to_owned(), 200, "role-a".to_owned()),
        (PERMITTED, format!("{SC}/role-a"), 200, DOCUMENT.to_owned()),
        (PERMITTED, "/1.0/meta-data/iam/security-credentials/role%2Da".to_owned(), 200, DOCUMENT.to_owned()),
        (PERMITTED, arn, 200, DOCUMENT.to_owned()),
        (SLASHED, format!("{SC}/"), 200, "team/role-d".to_owned()),
        (SLASHED, format!("{SC}/team/role-d"), 200, DOCUMENT.to_owned()),
        (NO_ROLE, format!("{SC}/"), 404, "empty role\n".to_owned()),
        (PERMITTED, "/".to_owned(), 404, blocked("/")),
        (PERMITTED, "/latest/user-data".to_owned(), 404, blocked("/latest/user-data")),
        (PERMITTED, "/latest/api/tokens".to_owned(), 404, blocked("/latest/api/tokens")),
        (PERMITTED, format!("{SC}-extended/role-a"), 404, blocked(&format!("{SC}-extended/role-a"))),
        (PERMITTED, "/ping".to_owned(), 404, blocked("/ping")),
        (PERMITTED, "/metrics".to_owned(), 404, blocked("/metrics")),
    ] {
        let reply = open.get(from, &target).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body.as_str()), "{target}");
        assert_eq!(reply.header("server"), Some("EC2ws"), "{target}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"), "{target}");
        assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()), "{target}");
        assert!(reply.header("date").is_some(), "{target}");
        assert_eq!(reply.header("x-content-type-options"), (status != 200).then_some("nosniff"), "{target}");
    }
}

#[tokio::test]
async fn header_names_are_written_as_in_ec2() {
    let open = open(ImdsV1::Allow).await;
    let put = "PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
    let answer = open.raw(PERMITTED, put).await;
    for name in ["X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60", "Server: EC2ws", "Content-Type: text/plain", "Date: "] {
        assert!(answer.contains(&format!("\r\n{name}")), "{name}: {answer}");
    }
}

/// Each failure of the source has its status, and the text of kiam where kiam has one.
#[tokio::test]
async fn source_failures_have_their_status_and_kiams_text() {
    let open = open(ImdsV1::Allow).await;
    let unknown = "rpc error: code = Unknown desc =";
    let unverified = errors()[4].to_string();
    let unusable = errors()[8].to_string();
    let no_pod = "the connection belongs to no known pod".to_owned();
    let table = [
        (503, format!("{unknown} pod not found"), "no pod found".to_owned()),
        (503, format!("{unknown} pod not found"), "no pod found".to_owned()),
        (403, no_pod.clone(), no_pod),
        (403, format!("{unknown} multiple running pods found"), format!("{unknown} multiple running pods found")),
        (403, unverified.clone(), unverified),
        (404, "empty role".to_owned(), format!("{unknown} role can't be empty")),
        (403, "forbidden by policy".to_owned(), "forbidden by policy".to_owned()),
        (503, format!("{unknown} AccessDenied: not authorized"), format!("{unknown} AccessDenied: not authorized")),
        (503, unusable.clone(), unusable),
        (
            503,
            "rpc error: code = Unavailable desc = no server can be reached".to_owned(),
            "rpc error: code = Unavailable desc = no server can be reached".to_owned(),
        ),
        (
            503,
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(),
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(),
        ),
    ];
    assert_eq!(table.len(), errors().len());
    for (index, (status, role, credentials)) in table.into_iter().enumerate() {
        let from = pod(100 + u8::try_from(index).unwrap());
        let retry = (status == 503).then_some("1");
        let reply = open.get(from, SC).await;
        assert_eq!((reply.status, reply.body, reply.headers.len()), (status, format!("{role}\n"), reply.headers.len()));
        assert!(reply.headers.iter().any(|(name, _)| name == "retry-after") == retry.is_some(), "{index}");

        let reply = open.get(from, &format!("{SC}/role-a")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry), "{index}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        let document: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(document["Message"], format!("error fetching credentials: {credentials}"));
        assert_ne!(document["Code"], "Success");
        assert!(document["LastUpdated"].as_str().unwrap().ends_with('Z'), "{document}");
        assert_eq!(document.as_object().unwrap().len(), 3, "{document}");
    }
    let forbidden = open.get(PERMITTED, &format!("{SC}/role-b")).await;
    assert_eq!(forbidden.status, 403);
    assert!(forbidden.body.starts_with(r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"error fetching cred"#));
}

#[tokio::test]
async fn tokens() {
    let open = open(ImdsV1::Allow).await;
    let reply = open.request(PERMITTED, "PUT", "/latest/api/token", "X-AWS-EC2-METADATA-TOKEN-TTL-SECONDS: 300").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-aws-ec2-metadata-token-ttl-seconds"), Some("300"));
    assert_eq!(reply.header("server"), Some("EC2ws"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));

    let with = format!("X-aws-ec2-metadata-token: {}", reply.body);
    assert_eq!(open.request(PERMITTED, "GET", SC, &with).await.body, "role-a");
    assert_eq!(open.request(PERMITTED, "GET", &format!("{SC}/role-a"), &with).await.body, DOCUMENT);
    assert_eq!(open.request(OTHER, "GET", SC, &with).await.status, 401, "another pod's");
    assert_eq!(open.request(PERMITTED, "GET", "/latest/user-data", &with).await.status, 404);
    open.ingress.kernel().interface = INTERFACE + 1;
    assert_eq!(open.request(PERMITTED, "GET", SC, &with).await.status, 401, "another interface");
    open.ingress.kernel().interface = INTERFACE;

    for bad in ["X-aws-ec2-metadata-token: ", "X-aws-ec2-metadata-token: whatever"] {
        assert_eq!(open.request(PERMITTED, "GET", SC, bad).await.status, 401, "{bad}");
        assert_eq!(open.request(PERMITTED, "GET", "/latest/user-data", bad).await.status, 401, "{bad}");
    }
    let twice = format!("{with}\r\n{with}");
    assert_eq!(open.request(PERMITTED, "GET", SC, &twice).await.status, 400);
}

#[tokio::test]
async fn token_expires() {
    let open = open(ImdsV1::Allow).await;
    let with = format!("X-aws-ec2-metadata-token: {}", open.token(PERMITTED, 1).await);
    let begin = Instant::now();
    assert_eq!(open.request(PERMITTED, "GET", SC, &with).await.status, 200);
    while open.request(PERMITTED, "GET", SC, &with).await.status == 200 {
        assert!(begin.elapsed() < PATIENCE, "it never ends");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
    assert_eq!(open.request(PERMITTED, "GET", SC, &with).await.status, 401);
}

#[tokio::test]
async fn token_ttl_has_bounds() {
    let open = open(ImdsV1::Allow).await;
    let name = "X-aws-ec2-metadata-token-ttl-seconds";
    for bad in ["", "0", "-1", "21601", "1.5", "x", "+60", "99999999999999999999"] {
        let reply = open.request(PERMITTED, "PUT", "/latest/api/token", &format!("{name}: {bad}")).await;
        assert_eq!(reply.status, 400, "{bad:?}");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(reply.body.contains("<title>400 - Bad Request</title>"), "{}", reply.body);
    }
    assert_eq!(open.request(PERMITTED, "PUT", "/latest/api/token", "").await.status, 400);
    let twice = format!("{name}: 60\r\n{name}: 60");
    assert_eq!(open.request(PERMITTED, "PUT", "/latest/api/token", &twice).await.status, 400);
    for good in ["1", "21600"] {
        let reply = open.request(PERMITTED, "PUT", "/2021-07-15/api/token", &format!("{name}: {good}")).await;
        assert_eq!((reply.status, reply.header(&name.to_lowercase())), (200, Some(good)));
    }
}

#[tokio::test]
async fn imds_v1_deny_requires_a_token_everywhere() {
    let open = open(ImdsV1::Deny).await;
    for target in [SC, "/latest/meta-data/iam/security-credentials/role-a", "/latest/user-data", "/"] {
        let reply = open.get(PERMITTED, target).await;
        assert_eq!(reply.status, 401, "{target}");
        assert!(reply.body.contains("401 - Unauthorized"));
    }
    let with = format!("X-aws-ec2-metadata-token: {}", open.token(PERMITTED, 60).await);
    assert_eq!(open.request(PERMITTED, "GET", SC, &with).await.body, "role-a");
}

/// IMDSv2 through a proxy is refused, and no header changes the identity of the pod.
#[tokio::test]
async fn forwarded_imdsv2_is_refused() {
    let open = open(ImdsV1::Allow).await;
    let token = open.token(PERMITTED, 60).await;
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    for forwarded in ["X-Forwarded-For: 127.0.1.3", "x-forwarded-for: 1.2.3.4", "X-FORWARDED-FOR:"] {
        let put = open.request(PERMITTED, "PUT", "/latest/api/token", &format!("{ttl}\r\n{forwarded}")).await;
        assert_eq!(put.status, 403, "{forwarded}");
        let get =
            open.request(PERMITTED, "GET", SC, &format!("X-aws-ec2-metadata-token: {token}\r\n{forwarded}")).await;
        assert_eq!(get.status, 403, "{forwarded}");
        assert_eq!(open.request(PERMITTED, "GET", SC, forwarded).await.body, "role-a", "IMDSv1: {forwarded}");
    }
    for header in ["Forwarded: for=127.0.1.3", "X-Real-IP: 127.0.1.3", "Via: 1.1 x", "Host: 127.0.1.3"] {
        assert_eq!(open.request(PERMITTED, "GET", SC, header).await.body, "role-a", "{header}");
    }
}

#[tokio::test]
async fn methods() {
    let open = open(ImdsV1::Allow).await;
    let credentials = format!("{SC}/role-a");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for target in [SC, &credentials, "/latest/user-data"] {
            let reply = open.request(PERMITTED, method, target, "").await;
            assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method} {target}");
        }
    }
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let reply = open.request(PERMITTED, method, "/latest/api/token", "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("PUT")), "{method}");
    }
    let head = open.request(PERMITTED, "HEAD", &credentials, "").await;
    let length = DOCUMENT.len().to_string();
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some(length.as_str())));
}

#[tokio::test]
async fn metrics_count_what_was_answered() {
    let open = open(ImdsV1::Allow).await;
    open.get(PERMITTED, SC).await;
    open.get(NO_ROLE, SC).await;
    open.get(pod(100), SC).await;
    open.get(PERMITTED, &format!("{SC}/role-a")).await;
    open.get(PERMITTED, &format!("{SC}/role-b")).await;
    open.get(PERMITTED, "/latest/user-data").await;
    open.raw(PERMITTED, "GET /latest//x HTTP/1.0\r\n\r\n").await;
    open.token(PERMITTED, 60).await;
    let metrics = open.metrics();
    for line in [
        r#"kiam_metadata_responses_total{handler="roleName",code="200"} 1"#,
        r#"kiam_metadata_responses_total{handler="credentials",code="403"} 1"#,
        r#"kiam_metadata_responses_total{handler="none",code="400"} 1"#,
        r#"kiam_metadata_success_total{handler="token"} 1"#,
        r#"kiam_metadata_empty_role_total{handler="roleName"} 1"#,
        r#"kiam_metadata_find_role_errors_total{handler="roleName"} 1"#,
        r#"kiam_metadata_credential_fetch_errors_total{handler="credentials"} 1"#,
        "kiam_metadata_proxy_requests_blocked_total 1",
        r#"kiam_agent_refusals_total{reason="not-known-yet"} 1"#,
        r#"kiam_agent_refusals_total{reason="malformed"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\nnot in\n{metrics}");
    }
}

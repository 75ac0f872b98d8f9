//! Answers of the fake IMDS: everything, for every client, with or without a token.

use crate::fakes::http_server::{Body, Handler, answer};
use bytes::Bytes;
use http::{Method, Response};
use serde_json::json;
use std::{net::SocketAddr, sync::Mutex};

/// Node role, which no pod may ever see.
pub const NODE_ROLE: &str = "canary-node-role";
/// Access key id of the node role's credentials.
pub const ACCESS_KEY_ID: &str = "ASIACANARYNODEROLE00";
/// Path of the role list below the version.
const ROLES: &str = "meta-data/iam/security-credentials";

/// An answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// `User-Agent` header.
    pub user_agent: String,
}

#[derive(Debug, Default)]
pub(super) struct Imds {
    requests: Mutex<Vec<Request>>,
}

impl Imds {
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic under this lock").clone()
    }

    pub(super) fn forget(&self) {
        self.requests.lock().expect("no panic under this lock").clear();
    }
}

impl Handler for Imds {
    fn answer(&self, peer: SocketAddr, request: http::Request<Bytes>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let user_agent = request.headers().get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.requests.lock().expect("no panic under this lock").push(Request {
            peer,
            method: method.to_string(),
            path: path.clone(),
            user_agent: user_agent.to_owned(),
        });
        let below_version = path.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
        route(&method, below_version)
    }
}

fn route(method: &Method, path: &str) -> Response<Body> {
    let text = |body: &'static str| answer(200, "text/plain", body);
    let json = |body: serde_json::Value| answer(200, "text/plain", body.to_string());
    match path.trim_end_matches('/') {
        "api/token" if method == Method::PUT => {
            let mut response = text("canary-token");
            response
                .headers_mut()
                .insert("x-aws-ec2-metadata-token-ttl-seconds", http::HeaderValue::from_static("21600"));
            response
        }
        ROLES => text(NODE_ROLE),
        "meta-data/iam/info" => json(json!({
            "Code": "Success",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "InstanceProfileArn": "arn:aws:iam::111122223333:instance-profile/canary-node-profile",
            "InstanceProfileId": "AIPACANARY",
        })),
        "meta-data/instance-id" => text("i-0canary0canary0ca"),
        "meta-data/placement/region" => text("us-east-1"),
        "meta-data/placement/availability-zone" => text("us-east-1a"),
        "dynamic/instance-identity/document" => json(json!({
            "accountId": "111122223333", "instanceId": "i-0canary0canary0ca", "region": "us-east-1", "canary": true,
        })),
        "user-data" => text("#canary user-data\n"),
        path if path.strip_prefix(ROLES).is_some() => json(json!({
            "Code": "Success",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Type": "AWS-HMAC",
            "AccessKeyId": ACCESS_KEY_ID,
            "SecretAccessKey": "canary-secret-canary-secret-canary-secre",
            "Token": "canary-session-token",
            "Expiration": "2099-01-01T00:00:00Z",
        })),
        _ => answer(404, "text/plain", "canary: no such path\n"),
    }
}

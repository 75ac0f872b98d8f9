//! One request, from its head to its answer, log line and metrics.

use super::{
    ImdsServer,
    answer::{Answer, Miss, Refusal},
    document,
    limits::{ANSWER_TIME_MAX, BODY_LEN_MAX},
    peer::Peer,
    phase::Phase,
    request::{self, Malformed, Presented},
    route::{Path, Route},
    token::Ttl,
};
use crate::{
    clock,
    config::ImdsV1,
    metrics::{Handler, Metrics},
    source::{Caller, CredentialSource, Found, Pod},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;

/// An answer, with the facts for log and metrics.
struct Outcome {
    answer: Answer,
    handler: Handler,
    pod: Option<Pod>,
    role: Option<String>,
    access_key_id: Option<String>,
}

impl Outcome {
    const fn new(handler: Handler, answer: Answer) -> Self {
        Self { answer, handler, pod: None, role: None, access_key_id: None }
    }
}

/// Answers a request. It never fails: errors are answers, too.
pub(super) async fn handle<S: CredentialSource>(
    server: &ImdsServer<S>,
    peer: &Peer,
    phase: &Phase,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    phase.request();
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let parts = Request::from_parts(parts, ());
    let outcome = match request::path(&parts) {
        Ok(path) => {
            discard(body, parts.headers()).await;
            answer(server, peer, parts.method(), &path, parts.headers()).await
        }
        Err(malformed) => {
            tracing::debug!(peer = %peer.address, why = malformed.0, "malformed request refused");
            Outcome::new(Handler::None, Answer::refused(Refusal::Malformed(malformed)))
        }
    };
    record(&server.metrics, peer, parts.method(), parts.uri().path(), &outcome, began.elapsed());
    phase.answered();
    Ok(outcome.answer.into_response())
}

/// Reads a body and discards it, so that the connection can go on. Its length was checked before.
async fn discard(body: Incoming, headers: &HeaderMap) {
    if matches!(request::body_len(headers), Ok(1..)) {
        let limit = usize::try_from(BODY_LEN_MAX).unwrap_or(usize::MAX);
        if let Err(error) = Limited::new(body, limit).collect().await {
            tracing::debug!(error, "cannot read the body of a request");
        }
    }
}

/// Answers a well-formed request.
async fn answer<S: CredentialSource>(
    server: &ImdsServer<S>,
    peer: &Peer,
    method: &Method,
    path: &Path<'_>,
    headers: &HeaderMap,
) -> Outcome {
    let route = path.route();
    let handler = match route {
        Route::RoleList => Handler::RoleName,
        Route::Credentials(_) => Handler::Credentials,
        Route::Token => Handler::Token,
        Route::Blocked => Handler::Proxy,
    };
    let refused = |refusal| Outcome::new(handler, Answer::refused(refusal));
    if let Err(refusal) = admit(server, peer, method, route, headers) {
        return refused(refusal);
    }
    match route {
        Route::Token => Outcome::new(handler, mint(server, peer, headers).unwrap_or_else(Answer::refused)),
        Route::RoleList => role_list(server, peer).await,
        Route::Credentials(role) => credentials(server, peer, role).await,
        Route::Blocked => {
            server.metrics.path_blocked();
            refused(Refusal::Blocked(path.as_str()))
        }
    }
}

/// Checks the rules for all paths, in EC2's order: proxies, methods, tokens.
fn admit<S>(
    server: &ImdsServer<S>,
    peer: &Peer,
    method: &Method,
    route: Route<'_>,
    headers: &HeaderMap,
) -> Result<(), Refusal<'static>> {
    if request::is_forwarded(method, headers) {
        return Err(Refusal::Forwarded);
    }
    match (route, method) {
        (Route::Token, &Method::PUT) => return Ok(()),
        (Route::Token, _) => return Err(Refusal::Method("PUT")),
        (_, &Method::GET | &Method::HEAD) => {}
        (_, _) => return Err(Refusal::Method("GET, HEAD")),
    }
    match request::token(headers) {
        Presented::None if server.v1 == ImdsV1::Allow => Ok(()),
        Presented::None => Err(Refusal::NoToken),
        Presented::Token(token) if server.tokens.is_valid(token, peer, clock::boottime_ms()) => Ok(()),
        Presented::Token(_) => Err(Refusal::BadToken),
        Presented::Many => Err(Refusal::Malformed(Malformed("there is more than one token"))),
    }
}

/// Returns a session token. It depends only on this process: SDKs that wait too long for a token fall back to IMDSv1
/// for good.
fn mint<S>(server: &ImdsServer<S>, peer: &Peer, headers: &HeaderMap) -> Result<Answer, Refusal<'static>> {
    let ttl = request::single(headers, &request::TOKEN_TTL).ok().flatten();
    let ttl = ttl.and_then(|ttl| Ttl::parse(ttl.as_bytes())).ok_or(Refusal::Ttl)?;
    let token = server.tokens.mint(peer, ttl, clock::boottime_ms()).map_err(|error| {
        tracing::error!(%error, "cannot create a session token");
        Refusal::NoRandom
    })?;
    let answer = Answer::ok(Bytes::copy_from_slice(&token));
    Ok(answer.with(request::TOKEN_TTL, HeaderValue::from(ttl.seconds())))
}

async fn role_list<S: CredentialSource>(server: &ImdsServer<S>, peer: &Peer) -> Outcome {
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let found = match caller(server, peer, deadline).await {
        Ok(caller) => server.source.role(caller, deadline).await.map_err(Miss::Source),
        Err(miss) => Err(miss),
    };
    match found {
        Ok(Found { value: role, pod }) if role.is_empty() => {
            server.metrics.role_empty();
            Outcome { pod, ..Outcome::new(Handler::RoleName, Answer::empty_role()) }
        }
        Ok(Found { value: role, pod }) => {
            // With `/role` SDKs would request `…/security-credentials//role`; without the slash it is the same role.
            let role = role.trim_start_matches('/').to_owned();
            let answer = Answer::ok(Bytes::copy_from_slice(role.as_bytes()));
            Outcome { pod, role: Some(role), ..Outcome::new(Handler::RoleName, answer) }
        }
        Err(miss) => {
            server.metrics.role_failed();
            Outcome::new(Handler::RoleName, Answer::no_role(&miss))
        }
    }
}

async fn credentials<S: CredentialSource>(server: &ImdsServer<S>, peer: &Peer, role: &str) -> Outcome {
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let found = match caller(server, peer, deadline).await {
        Ok(caller) => server.source.credentials(caller, role, deadline).await.map_err(Miss::Source),
        Err(miss) => Err(miss),
    };
    let outcome = Outcome { role: Some(role.to_owned()), ..Outcome::new(Handler::Credentials, Answer::empty_role()) };
    let document = found.and_then(|Found { value, pod }| {
        let document = document::credentials(&value).map_err(|error| {
            tracing::error!(%error, "cannot serialise a credentials document");
            Miss::Document
        })?;
        Ok((document, value.access_key_id, pod))
    });
    match document {
        Ok((document, access_key_id, pod)) => {
            Outcome { answer: Answer::ok(document), pod, access_key_id: Some(access_key_id), ..outcome }
        }
        Err(miss) => {
            server.metrics.credentials_failed();
            Outcome { answer: Answer::no_credentials(&miss, Timestamp::now()), ..outcome }
        }
    }
}

async fn caller<S>(server: &ImdsServer<S>, peer: &Peer, deadline: Instant) -> Result<Caller, Miss> {
    server.attribution.caller(peer, deadline).await.map_err(Miss::Unattributable)
}

/// Logs one line for the request and counts it. Never logs a secret or a token.
fn record(metrics: &Metrics, peer: &Peer, method: &Method, path: &str, outcome: &Outcome, took: Duration) {
    let Outcome { answer, handler, pod, role, access_key_id } = outcome;
    metrics.answered(*handler, answer.status.as_u16(), took, answer.refusal);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                status = answer.status.as_u16(),
                %method,
                // Escaped, so that a pod cannot forge lines or fields of the log.
                path = ?path,
                peer = %peer.address,
                interface = peer.interface(),
                attested = peer.attested().map(tracing::field::display),
                pod.namespace = pod.as_ref().map(|pod| pod.namespace.as_str()),
                pod.name = pod.as_ref().map(|pod| pod.name.as_str()),
                role = role.as_ref().map(tracing::field::debug),
                access_key_id = access_key_id.as_deref(),
                reason = answer.refusal,
                duration_ms = took.as_secs_f64() * 1_000.0,
                "answered a request"
            )
        };
    }
    if answer.status.as_u16() < 400 {
        line!(debug);
    } else {
        line!(info);
    }
}

//! Statuses and bodies of all answers. Errors that the agent itself detects look as in EC2; where kiam has a text for
//! an error, that text is kept.

use super::{attribution::Unattributable, document, request::Malformed};
use crate::source::SourceError;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use std::borrow::Cow;

/// The complete answer to a connection without a slot.
pub(super) const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Server: EC2ws\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Length: 52\r\n\r\n\
    too many connections to the metadata service at once";

/// A small page with the status as its title, as EC2 sends it.
macro_rules! page {
    ($title:literal) => {
        concat!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n",
            "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n",
            "\t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n",
            "<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n",
            " <head>\n  <title>",
            $title,
            "</title>\n </head>\n <body>\n  <h1>",
            $title,
            "</h1>\n </body>\n</html>\n"
        )
    };
}

/// An answer to a pod.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Reason of the refusal in logs and metrics; `None` if the request was not refused.
    pub(super) refusal: Option<&'static str>,
    kind: Kind,
    body: Bytes,
    extra: Option<(HeaderName, HeaderValue)>,
}

/// The kind of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The requested content, sent as plain text even if it is JSON, as in EC2.
    Text,
    /// An error text, sent with `nosniff`, as kiam does.
    Error,
    /// An error page.
    Page,
}

/// A reason to refuse a request that does not depend on its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// The request is malformed or ambiguous.
    Malformed(Malformed),
    /// IMDSv2 through a proxy.
    Forwarded,
    /// The method is not allowed; contains the allowed methods.
    Method(&'static str),
    /// The time to live for a token is missing or invalid.
    Ttl,
    /// A token is required and missing.
    NoToken,
    /// The token is not valid for this peer.
    BadToken,
    /// The kernel has no random bytes for a token.
    NoRandom,
    /// The path is not served; contains the path.
    Blocked(&'a str),
}

/// A reason for an answer without a role or credentials.
#[derive(Debug)]
pub(super) enum Miss {
    /// The connection has no known pod.
    Unattributable(Unattributable),
    /// The source failed.
    Source(SourceError),
    /// The document could not be serialised.
    Document,
}

/// The answer to a miss, as the role list and the credentials path word it.
struct Rendering<'a> {
    status: StatusCode,
    refusal: &'static str,
    /// Text on the role list.
    role: Cow<'a, str>,
    /// Text on the credentials path.
    credentials: Cow<'a, str>,
}

impl Answer {
    /// Returns a 200 with `body`.
    pub(super) const fn ok(body: Bytes) -> Self {
        Self { status: StatusCode::OK, refusal: None, kind: Kind::Text, body, extra: None }
    }

    /// Adds a header.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { extra: Some((name, value)), ..self }
    }

    /// Returns kiam's answer for the role of a pod without one.
    pub(super) const fn empty_role() -> Self {
        Self::error(StatusCode::NOT_FOUND, "no-role", Bytes::from_static(b"empty role\n"))
    }

    /// Returns the answer to a refused request.
    pub(super) fn refused(refusal: Refusal<'_>) -> Self {
        match refusal {
            Refusal::Malformed(_) => Self::page(StatusCode::BAD_REQUEST, "malformed", page!("400 - Bad Request"))
                .with(header::CONNECTION, HeaderValue::from_static("close")),
            Refusal::Ttl => Self::page(StatusCode::BAD_REQUEST, "bad-ttl", page!("400 - Bad Request")),
            Refusal::NoToken => Self::page(StatusCode::UNAUTHORIZED, "no-token", page!("401 - Unauthorized")),
            Refusal::BadToken => Self::page(StatusCode::UNAUTHORIZED, "bad-token", page!("401 - Unauthorized")),
            Refusal::Forwarded => Self::page(StatusCode::FORBIDDEN, "forwarded", page!("403 - Forbidden")),
            Refusal::Method(allowed) => {
                Self::page(StatusCode::METHOD_NOT_ALLOWED, "method", page!("405 - Method Not Allowed"))
                    .with(header::ALLOW, HeaderValue::from_static(allowed))
            }
            Refusal::NoRandom => {
                let page = page!("503 - Service Unavailable");
                Self::page(StatusCode::SERVICE_UNAVAILABLE, "no-random", page).retry_soon()
            }
            Refusal::Blocked(path) => {
                let text = format!("request blocked by allow-route-regexp \"^$\": {path}\n");
                Self::error(StatusCode::NOT_FOUND, "blocked", text.into())
            }
        }
    }

    /// Returns the answer of the role list without a role.
    pub(super) fn no_role(miss: &Miss) -> Self {
        let Rendering { status, refusal, role, credentials: _ } = miss.rendering();
        Self::error(status, refusal, format!("{role}\n").into()).retry_if_unavailable()
    }

    /// Returns the answer of the credentials path without credentials: a document with kiam's text as its message,
    /// because SDKs parse a document here.
    pub(super) fn no_credentials(miss: &Miss, now: Timestamp) -> Self {
        let Rendering { status, refusal, role: _, credentials } = miss.rendering();
        let message = format!("error fetching credentials: {credentials}");
        // If the document cannot be serialised, the text alone is still an answer.
        let body = document::failure(code(status), &message, now).unwrap_or_else(|_| message.into());
        Self::error(status, refusal, body).retry_if_unavailable()
    }

    /// Converts the answer for hyper.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, refusal: _, kind, body, extra } = self;
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static("EC2ws"));
        let content_type = if kind == Kind::Page { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if kind == Kind::Error {
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if let Some((name, value)) = extra {
            headers.insert(name, value);
        }
        response
    }

    const fn error(status: StatusCode, refusal: &'static str, body: Bytes) -> Self {
        Self { status, refusal: Some(refusal), kind: Kind::Error, body, extra: None }
    }

    const fn page(status: StatusCode, refusal: &'static str, page: &'static str) -> Self {
        let body = Bytes::from_static(page.as_bytes());
        Self { status, refusal: Some(refusal), kind: Kind::Page, body, extra: None }
    }

    fn retry_if_unavailable(self) -> Self {
        if self.status == StatusCode::SERVICE_UNAVAILABLE { self.retry_soon() } else { self }
    }

    fn retry_soon(self) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }
}

/// Returns the code of a document without credentials. SDKs recognise EC2's code for credentials that policy forbids.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "AssumeRoleUnauthorizedAccess",
        StatusCode::NOT_FOUND => "InstanceProfileNotFound",
        _ => "ServiceUnavailable",
    }
}

impl Miss {
    /// Returns status, reason and texts of this miss.
    fn rendering(&self) -> Rendering<'_> {
        use StatusCode as S;
        /// Renders a miss that kiam words differently on the two paths.
        fn two<'a>(status: S, refusal: &'static str, role: &'a str, credentials: &'a str) -> Rendering<'a> {
            Rendering { status, refusal, role: role.into(), credentials: credentials.into() }
        }
        fn one<'a>(status: S, refusal: &'static str, text: impl Into<Cow<'a, str>>) -> Rendering<'a> {
            let text = text.into();
            Rendering { status, refusal, role: text.clone(), credentials: text }
        }
        let no_pod = ("rpc error: code = Unknown desc = pod not found", "no pod found");
        match self {
            Self::Unattributable(why) => {
                let (status, refusal) = unattributable(*why);
                one(status, refusal, "the connection belongs to no known pod")
            }
            Self::Document => one(S::SERVICE_UNAVAILABLE, "document", "the credentials cannot be written down"),
            Self::Source(error) => match error {
                SourceError::NotKnownYet => two(S::SERVICE_UNAVAILABLE, "not-known-yet", no_pod.0, no_pod.1),
                SourceError::Stale => two(S::SERVICE_UNAVAILABLE, "stale", no_pod.0, no_pod.1),
                SourceError::Contradiction => {
                    one(S::FORBIDDEN, "contradiction", "the connection belongs to no known pod")
                }
                SourceError::Ambiguous => {
                    one(S::FORBIDDEN, "ambiguous", "rpc error: code = Unknown desc = multiple running pods found")
                }
                SourceError::Unverified => one(S::FORBIDDEN, "unverified", error.to_string()),
                SourceError::NoRole => {
                    two(S::NOT_FOUND, "no-role", "empty role", "rpc error: code = Unknown desc = role can't be empty")
                }
                SourceError::Forbidden => one(S::FORBIDDEN, "forbidden", "forbidden by policy"),
                SourceError::Upstream { message } => {
                    let text = format!("rpc error: code = Unknown desc = {message}");
                    one(S::SERVICE_UNAVAILABLE, "upstream", text)
                }
                SourceError::Unusable { .. } => one(S::SERVICE_UNAVAILABLE, "unusable", error.to_string()),
                SourceError::Unreachable => {
                    let text = "rpc error: code = Unavailable desc = no server can be reached";
                    one(S::SERVICE_UNAVAILABLE, "unreachable", text)
                }
                SourceError::TimedOut => {
                    let text = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
                    one(S::SERVICE_UNAVAILABLE, "timed-out", text)
                }
            },
        }
    }
}

/// Returns status and reason. The reason is only for logs and metrics: a peer without a known pod must not learn more.
const fn unattributable(why: Unattributable) -> (StatusCode, &'static str) {
    match why {
        Unattributable::Interface => (StatusCode::FORBIDDEN, "unattributable"),
        Unattributable::NoRecord => (StatusCode::FORBIDDEN, "no-record"),
        Unattributable::NotAPod => (StatusCode::FORBIDDEN, "not-a-pod"),
        Unattributable::Several => (StatusCode::FORBIDDEN, "several-records"),
        Unattributable::StaticPod => (StatusCode::FORBIDDEN, "static-pod"),
        Unattributable::Elsewhere => (StatusCode::FORBIDDEN, "elsewhere"),
        Unattributable::Untold => (StatusCode::SERVICE_UNAVAILABLE, "untold"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_answer_has_the_right_length() {
        let text = str::from_utf8(TOO_MANY_CONNECTIONS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        assert!(!text.contains("  "), "{text}");
    }

    /// Each reason for which no pod is found is in docs/agent.md with its status.
    #[test]
    fn docs_explain_each_unattributable_reason() {
        let page = include_str!("../../../docs/agent.md");
        for why in [
            Unattributable::Interface,
            Unattributable::NoRecord,
            Unattributable::NotAPod,
            Unattributable::Several,
            Unattributable::StaticPod,
            Unattributable::Elsewhere,
            Unattributable::Untold,
        ] {
            let (status, reason) = unattributable(why);
            assert!(page.contains(&format!("| `{reason}` | {} |", status.as_u16())), "{reason}");
        }
    }

    #[test]
    fn failure_documents_never_have_code_success() {
        for status in 400..600 {
            assert_ne!(code(StatusCode::from_u16(status).unwrap()), "Success");
        }
    }
}

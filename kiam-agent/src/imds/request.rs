//! Checks before any look-up: requests are refused that are too large, that two parsers could read differently, or that
//! came through a proxy.

use super::{
    limits::{BODY_LEN_MAX, HEADERS_MAX, TARGET_LEN_MAX},
    route::Path,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

/// Header of a request with its session token.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// Header with the time to live of a token, seconds, in the request for the token and in its answer.
pub(super) const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Header that proxies add.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The reason why a request is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The session token of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// IMDSv1.
    None,
    /// IMDSv2.
    Token(&'a [u8]),
    /// More than one.
    Many,
}

/// Returns the path of a well-formed request.
pub(super) fn path<B>(request: &Request<B>) -> Result<Path<'_>, Malformed> {
    let (uri, headers) = (request.uri(), request.headers());
    if uri.scheme().is_some() || uri.authority().is_some() {
        return Err(Malformed("the request target is not a path"));
    }
    if uri.path_and_query().is_none_or(|target| target.as_str().len() > TARGET_LEN_MAX) {
        return Err(Malformed("the request target is too long"));
    }
    if headers.len() > HEADERS_MAX {
        return Err(Malformed("there are too many headers"));
    }
    // hyper would apply it and ignore a Content-Length next to it; no client of the IMDS needs it.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Malformed("the body has a transfer encoding"));
    }
    if body_len(headers)? > BODY_LEN_MAX {
        return Err(Malformed("the body is too long"));
    }
    Path::parse(uri.path()).map_err(|ambiguous| Malformed(ambiguous.0))
}

/// Returns the length of the body, bytes. hyper has already refused invalid and contradictory lengths.
pub(super) fn body_len(headers: &HeaderMap) -> Result<u64, Malformed> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(0) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.ok_or(Malformed("the length of the body is not a number"))
}

/// Returns the session token of the request.
pub(super) fn token(headers: &HeaderMap) -> Presented<'_> {
    match single(headers, &TOKEN) {
        Ok(None) => Presented::None,
        Ok(Some(token)) => Presented::Token(token.as_bytes()),
        Err(Many) => Presented::Many,
    }
}

/// Returns the value of a header, or an error if the request carries it more than once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Many> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Many) } else { Ok(first) }
}

/// A header that must be unique is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Many;

/// Returns true if the request is of IMDSv2 and came through a proxy. EC2 refuses these, so that an open proxy in a pod
/// does not give away the pod's credentials.
pub(super) fn is_forwarded(method: &Method, headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR) && (method == Method::PUT || headers.contains_key(TOKEN))
}

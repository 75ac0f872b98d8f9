//! Paths and their routes. There is one parser and one table: a path is decoded once, and refused if another parser
//! could read it differently. Nothing is forwarded, so all other paths are blocked.

use std::{borrow::Cow, str};

/// An unambiguous path, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path<'a>(Cow<'a, str>);

/// The route of a path. `{version}` is any first segment: `latest`, `2021-07-15`, `1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/{version}/meta-data/iam/security-credentials`, with or without a final slash.
    RoleList,
    /// `/{version}/meta-data/iam/security-credentials/{role}`; the role is a name, a path and a name, or an ARN.
    Credentials(&'a str),
    /// `/{version}/api/token`.
    Token,
    /// Any other path.
    Blocked,
}

/// The reason why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous(pub(super) &'static str);

impl<'a> Path<'a> {
    /// Decodes the path of a request line, without its query.
    ///
    /// # Errors
    /// Another parser might read the path differently: it does not begin at the root, or has `.`, `..` or empty
    /// segments, an encoded slash or percent sign, a backslash, control characters, bad escapes, or bytes that are not
    /// UTF-8.
    pub(super) fn parse(raw: &'a str) -> Result<Self, Ambiguous> {
        if !raw.starts_with('/') {
            return Err(Ambiguous("the path does not begin with a slash"));
        }
        let path = decode(raw)?;
        if path.contains(|c: char| c.is_control() || c == '\\' || c == '%') {
            return Err(Ambiguous("the path has a control character, a backslash or a double escape"));
        }
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "" if segments.peek().is_some() => return Err(Ambiguous("the path has an empty segment")),
                "." | ".." => return Err(Ambiguous("the path has a dot segment")),
                _ => {}
            }
        }
        Ok(Self(path))
    }

    /// Returns the decoded path.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the route of the path.
    pub(super) fn route(&self) -> Route<'_> {
        let Some((version, rest)) = self.0.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return Route::Blocked;
        };
        if version.is_empty() {
            return Route::Blocked;
        }
        match rest {
            "api/token" => Route::Token,
            "meta-data/iam/security-credentials" | "meta-data/iam/security-credentials/" => Route::RoleList,
            _ => match rest.strip_prefix("meta-data/iam/security-credentials/") {
                Some(role) => Route::Credentials(role),
                None => Route::Blocked,
            },
        }
    }
}

/// Decodes `%XX`, once.
fn decode(raw: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let escaped = bytes.next().zip(bytes.next()).and_then(|(high, low)| Some(hex(high)? << 4 | hex(low)?));
        match escaped {
            None => return Err(Ambiguous("the path has a bad escape")),
            Some(b'/') => return Err(Ambiguous("the path has an encoded slash")),
            Some(escaped) => decoded.push(escaped),
        }
    }
    match String::from_utf8(decoded) {
        Ok(path) => Ok(Cow::Owned(path)),
        Err(_not_utf8) => Err(Ambiguous("the path is not UTF-8")),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

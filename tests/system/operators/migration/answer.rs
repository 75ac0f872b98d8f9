//! Answers in the notation of the tables: `STATUS [header: value] body`.

use super::facts;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Headers that distinguish answers; headers of all answers are in another table.
const DISTINCTIVE: [&str; 4] = ["Location", "Allow", "Retry-After", "X-aws-ec2-metadata-token-ttl-seconds"];
/// Keys of the credentials document, in kiam's order.
const DOCUMENT: [&str; 7] = ["Code", "Type", "AccessKeyId", "SecretAccessKey", "Token", "Expiration", "LastUpdated"];

/// An answer as printed by curl's `--include`.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// Parses curl's output.
    pub(super) fn parse(printed: &[u8]) -> Result<Self> {
        let printed = std::str::from_utf8(printed)?;
        let (head, body) = printed.split_once("\r\n\r\n").with_context(|| format!("no answer: {printed:?}"))?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status: status.with_context(|| format!("no status: {head:?}"))?,
            headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
            body: body.to_owned(),
        })
    }

    /// Returns the value of a header, or `-` without one.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("-", |(_, value)| value)
    }

    /// Returns whether the agent's own timeout for this request has passed.
    pub(super) fn is_late(&self) -> bool {
        self.status == 503 && self.body.contains("code = DeadlineExceeded")
    }

    /// Returns `answer`, `error`, or `page` for an error that is a page.
    pub(super) fn kind(&self) -> &'static str {
        match self.status {
            ..400 => "answer",
            _ if self.is_page() => "page",
            _ => "error",
        }
    }

    fn is_page(&self) -> bool {
        self.body.trim_start().starts_with('<')
    }

    /// Returns the notation of the tables for the answer to this method and path.
    pub(super) fn text(&self, method: &str, path: &str) -> String {
        let distinctive = DISTINCTIVE.iter().map(|name| (*name, self.header(name))).filter(|(_, value)| *value != "-");
        let headers: Vec<String> =
            distinctive.map(|(name, value)| format!("{name}: {}", facts::short(value, path))).collect();
        text(&self.status.to_string(), &headers.join("; "), &self.body_text(method, path))
    }

    fn body_text(&self, method: &str, path: &str) -> String {
        if let Ok(Value::Object(document)) = serde_json::from_str(&self.body) {
            let part = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            return match part("Code").as_str() {
                "Success" => "@credentials".to_owned(),
                code => format!("@error {code}: {}", facts::short(&part("Message"), path)),
            };
        }
        if method == "PUT" && self.status == 200 && path.ends_with("/api/token") {
            return "@token".to_owned();
        }
        if self.is_page() {
            return "@page".to_owned();
        }
        facts::short(self.body.trim_end_matches('\n'), path)
    }

    /// Returns the access key id of a credentials document in kiam's form: the same keys in the same order, on one
    /// line, with times to the second in UTC.
    pub(super) fn access_key_id(&self) -> Result<String> {
        let document: Value = serde_json::from_str(&self.body)?;
        let places: Vec<_> = DOCUMENT.iter().map(|key| self.body.find(&format!("\"{key}\":\""))).collect();
        ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "not kiam's keys in kiam's order");
        ensure!(document.as_object().is_some_and(|keys| keys.len() == DOCUMENT.len()), "more keys than kiam's");
        ensure!(self.body.find('\n') == Some(self.body.len() - 1), "not one line");
        let part = |key: &str| document[key].as_str().unwrap_or_default();
        ensure!((part("Code"), part("Type")) == ("Success", "AWS-HMAC"), "{document}");
        for key in ["Expiration", "LastUpdated"] {
            let time = part(key);
            ensure!(time.len() == "2026-11-21T08:16:34Z".len() && time.ends_with('Z'), "{key}: {time}");
        }
        Ok(part("AccessKeyId").to_owned())
    }
}

/// Joins the parts.
pub(super) fn text(status: &str, headers: &str, body: &str) -> String {
    let headers = if headers.is_empty() { String::new() } else { format!("[{headers}]") };
    [status, &headers, body].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn answers_are_written_as_in_the_tables() {
    let of = |printed: &str, path: &str| Answer::parse(printed.as_bytes()).unwrap().text("GET", path);
    assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nrole-a", "/x"), "200 role-a");
    assert_eq!(of("HTTP/1.1 404 Not Found\r\n\r\nblocked: /x\n", "/x"), "404 blocked: $PATH");
    let moved = "HTTP/1.1 301 Moved\r\nlocation: /latest/meta-data/iam/security-credentials/\r\n\r\n<a>x</a>";
    assert_eq!(of(moved, "/x"), "301 [Location: $SC/] @page");
    let failed = "HTTP/1.1 503 X\r\nRetry-After: 1\r\n\r\n{\"Code\":\"Failed\",\"Message\":\"no\"}\n";
    assert_eq!(of(failed, "/x"), "503 [Retry-After: 1] @error Failed: no");
    assert!(Answer::parse(b"").is_err());
}

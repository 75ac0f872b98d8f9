//! Answers of a kiam v4.2 agent, from `kiam-v4.tsv`.

use anyhow::{Context as _, Result, ensure};

/// Abbreviation for the path of the roles in tables.
const SC: (&str, &str) = ("$SC", "/latest/meta-data/iam/security-credentials");
/// Abbreviation for the start of a role's ARN in tables.
const ARN: (&str, &str) = ("$ARN", "arn:aws:iam::123456789012:role");

/// A request and kiam's answer to it.
#[derive(Debug)]
pub(super) struct Fact {
    /// Name of the requesting pod in `pods.rs`.
    pub(super) pod: String,
    /// Request in the notation of the table.
    pub(super) request: String,
    /// Answer in the notation of the table.
    pub(super) answer: String,
}

/// A header with the same value in every answer of a kind.
#[derive(Debug)]
pub(super) struct Always {
    /// Kind of the answers: `answer` or `error`.
    pub(super) kind: String,
    /// Name of the header.
    pub(super) header: String,
    /// Value; `-` if the header is missing.
    pub(super) value: String,
}

/// Reads all of them.
pub(super) fn read() -> Result<(Vec<Always>, Vec<Fact>)> {
    let (mut always, mut facts) = (Vec::new(), Vec::new());
    for line in include_str!("kiam-v4.tsv").lines().filter(|line| !line.starts_with('#')) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [kind, header, value] => {
                always.push(Always { kind: kind.to_owned(), header: header.to_owned(), value: value.to_owned() });
            }
            [pod, request, status, headers, body] => facts.push(Fact {
                pod: pod.to_owned(),
                request: request.to_owned(),
                answer: super::answer::text(status, headers, body),
            }),
            _ => anyhow::bail!("kiam-v4.tsv: «{line}» must have three or five columns"),
        }
    }
    Ok((always, facts))
}

/// A request, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path with its query.
    pub(super) path: String,
    pub(super) headers: Vec<String>,
    pub(super) body: Option<String>,
}

impl Request {
    /// Parses `METHOD PATH [header: value] {body}`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (method, rest) = text.split_once(' ').context("a method and a path")?;
        let (path, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut request = Self { method: method.to_owned(), path: full(path), headers: Vec::new(), body: None };
        while !rest.is_empty() {
            let (open, close) = if rest.starts_with('[') { ('[', ']') } else { ('{', '}') };
            let (part, after) =
                rest.strip_prefix(open).and_then(|rest| rest.split_once(close)).context(rest.to_owned())?;
            if open == '[' {
                request.headers.push(part.to_owned());
            } else {
                ensure!(request.body.replace(part.to_owned()).is_none(), "two bodies");
            }
            rest = after.trim_start();
        }
        Ok(request)
    }
}

/// Replaces abbreviations by what they represent.
fn full(text: &str) -> String {
    text.replace(SC.0, SC.1).replace(ARN.0, ARN.1)
}

/// Replaces text by the abbreviations of the tables, for a request of `path`.
pub(super) fn short(text: &str, path: &str) -> String {
    text.replace(&format!(": {path}"), ": $PATH").replace(SC.1, SC.0)
}

#[test]
fn requests_are_parsed() {
    let request = Request::parse("PUT /latest/api/token [A: b] [C: d] {e=f}").unwrap();
    assert_eq!(request.path, "/latest/api/token");
    assert_eq!(
        (request.headers.as_slice(), request.body.as_deref()),
        (["A: b", "C: d"].map(str::to_owned).as_slice(), Some("e=f"))
    );
    assert_eq!(Request::parse("GET $SC/$ARN/x").unwrap().path, format!("{}/{}/x", SC.1, ARN.1));
    assert!(Request::parse("GET").is_err());
    assert!(Request::parse("GET /x [y").is_err());
}

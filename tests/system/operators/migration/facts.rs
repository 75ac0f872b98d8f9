//! What a kiam v4.2 agent answers, out of `kiam-v4.tsv`.

use anyhow::{Context as _, Result, ensure};

/// Stands for the path of the roles in tables.
const SC: (&str, &str) = ("$SC", "/latest/meta-data/iam/security-credentials");
/// Stands for the beginning of a role's ARN in tables.
const ARN: (&str, &str) = ("$ARN", "arn:aws:iam::123456789012:role");

/// A request and kiam's answer to it.
#[derive(Debug)]
pub(super) struct Fact {
    /// Which pod asks: a name of `pods.rs`.
    pub(super) pod: String,
    /// The request as the table writes it.
    pub(super) request: String,
    /// The answer as the table writes it.
    pub(super) answer: String,
}

/// What is the same in every answer of a kind.
#[derive(Debug)]
pub(super) struct Always {
    /// Which answers: `answer` or `error`.
    pub(super) kind: String,
    /// The header's name.
    pub(super) header: String,
    /// Its value; `-` where there is none.
    pub(super) value: String,
}

/// All of them.
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
            _ => anyhow::bail!("kiam-v4.tsv: «{line}» has neither three nor five columns"),
        }
    }
    Ok((always, facts))
}

/// A request, ready to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: Vec<String>,
    pub(super) body: Option<String>,
}

impl Request {
    /// Reads `METHOD PATH [header: value] {body}`.
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

/// With what the abbreviations stand for.
fn full(text: &str) -> String {
    text.replace(SC.0, SC.1).replace(ARN.0, ARN.1)
}

/// With the abbreviations of the tables, where `path` was asked for.
pub(super) fn short(text: &str, path: &str) -> String {
    text.replace(&format!(": {path}"), ": $PATH").replace(SC.1, SC.0)
}

#[test]
fn requests_are_read() {
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

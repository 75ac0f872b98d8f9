//! Answers to pods.

use super::{
    answer::Answer,
    facts::{self, Always, Fact, Request},
    pods::{self, Caller},
    sts_gate::StsGate,
    table,
};
use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    clients::curl,
    eventually::eventually,
    fakes::sts::Sts,
    node::netns::Netns,
    system::{SOON, scenario},
};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = "docs/migration.md";
/// Differences of single answers: pod, request, kiam's answer, ours, reason.
const SINGLE: &str = "### Single answers";
/// Differences of all answers of a kind: kinds, header, kiam's value, ours, reason.
const ALL: &str = "### All answers";
/// Addresses of the IMDS, in curl's notation.
const BOTH: [&str; 2] = ["169.254.169.254", "[fd00:ec2::254]"];

/// Rows of [`SINGLE`]: from pod and request to kiam's answer and ours.
type ByRequest<'a> = BTreeMap<(&'a str, &'a str), (&'a str, &'a str)>;

/// A fact, and our answers over both families.
struct Observed<'a> {
    fact: &'a Fact,
    request: Request,
    caller: &'a Caller,
    answers: [Answer; 2],
}

#[test]
fn answers_that_differ_from_kiam_have_a_row() {
    scenario(|system| {
        let page = table::page(PAGE)?;
        let (always, facts) = facts::read()?;
        let _gate = StsGate::start(&system.topology.uplink)?;
        system.server_flags = vec![format!("--sts-endpoint={}", StsGate::endpoint())];
        let callers = pods::add_all(system)?;
        system.start()?;
        let observed = observe(&callers, &facts)?;
        let mut problems = compare_single(&observed, &page)?;
        problems.extend(compare_all(&observed, &always, &page)?);
        for observed in &observed {
            problems
                .extend(check_credentials(observed, &system.topology.uplink).err().map(|error| format!("{error:#}")));
        }
        ensure!(problems.is_empty(), "{PAGE}:\n{}", problems.join("\n"));
        Ok(())
    });
}

/// Sends every request.
fn observe<'a>(callers: &'a [Caller], facts: &'a [Fact]) -> Result<Vec<Observed<'a>>> {
    let caller = |name: &str| callers.iter().find(|caller| caller.name == name).context(format!("no pod {name}"));
    // Waits for the watch: before that, the first answers could be those for an unknown pod.
    let (last, list) = (caller("session")?, Request::parse("GET $SC/")?);
    eventually("the server sees the pods", SOON, || {
        let answer = send(last, BOTH[0], &list)?;
        ensure!(answer.text("GET", &list.path) == "200 role-e", "{answer:?}");
        Ok(())
    })?;
    let observe = |fact: &'a Fact| {
        let (caller, request) = (caller(&fact.pod)?, Request::parse(&fact.request)?);
        let observed = |imds| {
            eventually(&format!("{}: {} is answered at {imds}", fact.pod, fact.request), SOON, || {
                let answer = send(caller, imds, &request)?;
                // This happens on a busy machine and is no difference to kiam.
                ensure!(!answer.is_late(), "{answer:?}");
                Ok(answer)
            })
        };
        Ok(Observed { fact, caller, answers: [observed(BOTH[0])?, observed(BOTH[1])?], request })
    };
    facts.iter().map(observe).collect()
}

fn send(caller: &Caller, imds: &str, request: &Request) -> Result<Answer> {
    let Request { method, path, headers, body } = request;
    let url = format!("http://{imds}{path}");
    let mut arguments = vec!["--include", "--path-as-is", "--globoff"];
    // With --request HEAD curl would wait for a body.
    arguments.extend(if method == "HEAD" { vec!["--head"] } else { vec!["--request", method] });
    arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
    arguments.extend(body.iter().flat_map(|body| ["--data", body]));
    arguments.push(&url);
    let output = curl(&caller.network, &arguments)?;
    Answer::parse(&output.stdout).with_context(|| format!("curl: {}", output.status))
}

/// Checks that each answer is kiam's and has no row, or is that of its row, which quotes kiam's correctly.
fn compare_single(observed: &[Observed<'_>], page: &str) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let table = table::rows(page, SINGLE)?;
    let mut rows = by_request(&table)?;
    for Observed { fact: Fact { pod, request, answer: kiams }, request: sent, answers, .. } in observed {
        let row = rows.remove(&(pod.as_str(), request.as_str()));
        if row.is_some_and(|(kiam, ours)| kiam != kiams || kiam == ours) {
            problems.push(format!("{pod}: {request}: kiam answers «{kiams}», but the row is {row:?}"));
        }
        let path = sent.path.split('?').next().unwrap_or_default();
        for (imds, answer) in BOTH.into_iter().zip(answers) {
            let text = answer.text(&sent.method, path);
            if text != row.map_or(kiams.as_str(), |(_, ours)| ours) {
                let expected = if row.is_some() { "the row's" } else { "kiam's, and without a row" };
                problems.push(format!("{pod}: {request} at {imds}: not {expected}: | `{kiams}` | `{text}` |"));
            }
        }
    }
    problems.extend(rows.keys().map(|(pod, request)| format!("a row without a request: {pod}: {request}")));
    Ok(problems)
}

/// Returns kiam's answer and ours, by pod and request.
fn by_request(rows: &[Vec<String>]) -> Result<ByRequest<'_>> {
    let mut map = BTreeMap::new();
    for row in rows {
        let [pod, request, kiam, ours, why] = row.as_slice() else { bail!("{SINGLE}: not five cells: {row:?}") };
        ensure!(!why.is_empty(), "{SINGLE}: a row needs a reason: {row:?}");
        let twice = map.insert((pod.as_str(), request.as_str()), (kiam.as_str(), ours.as_str()));
        ensure!(twice.is_none(), "{SINGLE}: two rows for {pod}: {request}");
    }
    Ok(map)
}

/// Checks that the headers of all answers of a kind are kiam's, or those of a row.
fn compare_all(observed: &[Observed<'_>], always: &[Always], page: &str) -> Result<Vec<String>> {
    let mut problems = BTreeSet::new();
    let rows = table::rows(page, ALL)?;
    let mut unused: BTreeSet<_> = rows.iter().collect();
    for answer in observed.iter().flat_map(|observed| &observed.answers) {
        let kind = answer.kind();
        // kiam's errors are never pages.
        for Always { header, value, .. } in
            always.iter().filter(|always| kind == always.kind || kind == "page" && always.kind == "error")
        {
            let ours = answer.header(header);
            if ours == value {
                continue;
            }
            let is_row = |row: &&Vec<String>| {
                row[0].split(", ").any(|one| one == kind)
                    && row[1..4] == [header.as_str(), value, ours]
                    && row.len() == 5
            };
            match rows.iter().find(is_row) {
                Some(row) => drop(unused.remove(row)),
                None => drop(problems.insert(format!("no row for {kind}: {header}: kiam «{value}», ours «{ours}»"))),
            }
        }
    }
    problems.extend(unused.iter().map(|row| format!("a row without a difference: {row:?}")));
    Ok(problems.into_iter().collect())
}

/// Checks that credentials are in kiam's format, and belong to the pod's role and session.
fn check_credentials(observed: &Observed<'_>, uplink: &Netns) -> Result<()> {
    let Observed { fact, request, caller, answers } = observed;
    for answer in answers.iter().filter(|answer| answer.text(&request.method, &request.path) == "200 @credentials") {
        let context = || format!("{}: {}", fact.pod, fact.request);
        let key = answer.access_key_id().with_context(context)?;
        let identity = Sts::identity_of(uplink, &key)?;
        let session = caller.session;
        ensure!(
            !session.is_empty() && identity.ends_with(&format!("/{session}")),
            "{}: they belong to {identity}",
            context()
        );
    }
    Ok(())
}
